"""The accounts the service makes by itself."""

import secrets

from django.contrib.auth.models import User


def administrator_ensure() -> str | None:
    """Make the user `admin` where no administrator exists; return its random password, kept nowhere else."""
    if User.objects.filter(is_superuser=True).exists():
        return None
    password = secrets.token_urlsafe(12)
    User.objects.create_superuser(username="admin", password=password)
    return password
