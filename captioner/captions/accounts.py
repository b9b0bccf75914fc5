"""The accounts the service makes by itself, and who may get into which: nobody gives rights that they do not have."""

import secrets
import uuid

from django.contrib.auth.models import AnonymousUser, Group, Permission, User
from django.db import transaction
from django.db.models import Q, QuerySet

from captioner.models import Caption, Job


def administrator_ensure() -> str | None:
    """Make the user `admin` where no administrator exists; return its random password, kept nowhere else."""
    if User.objects.filter(is_superuser=True).exists():
        return None
    password = secrets.token_urlsafe(12)
    User.objects.create_superuser(username="admin", password=password)
    return password


def permissions_of(actor: User | AnonymousUser) -> QuerySet[Permission]:
    """What `actor` may do: all that there is for a superuser."""
    if actor.is_superuser:
        return Permission.objects.all()
    return Permission.objects.filter(Q(user=actor.pk) | Q(group__user=actor.pk)).distinct()


def _permissions_beyond(actor: User | AnonymousUser) -> QuerySet[Permission]:
    """What `actor` may not do."""
    return Permission.objects.exclude(pk__in=permissions_of(actor).values("pk"))


def users_within(actor: User | AnonymousUser) -> QuerySet[User]:
    """Users who may do nothing that `actor` may not: only into these may `actor` get, or let anybody else."""
    if actor.is_superuser:
        return User.objects.all()
    beyond = _permissions_beyond(actor)
    return (
        User.objects.filter(is_superuser=False)
        .exclude(user_permissions__in=beyond)
        .exclude(groups__permissions__in=beyond)
    )


def groups_within(actor: User | AnonymousUser) -> QuerySet[Group]:
    """Groups that give nothing that `actor` does not have."""
    if actor.is_superuser:
        return Group.objects.all()
    beyond = _permissions_beyond(actor)
    return Group.objects.exclude(permissions__in=beyond)


def visitor_adopt(visitor: uuid.UUID, user: User) -> int:
    """What this browser's visitor captioned before signing in is `user`'s from now on; returns how many captions."""
    with transaction.atomic():
        Job.objects.filter(visitor=visitor).update(visitor=None, user=user)
        return Caption.objects.filter(visitor=visitor).update(visitor=None, user=user)
