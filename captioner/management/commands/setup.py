"""Make a database and a store ready to serve: schema, static files, starter weights, an administrator."""

from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from captioner import services
from models_registry import services as registry
from models_registry.exceptions import RegistryError


class Command(BaseCommand):
    help = "Prepare everything the service needs to start. Running it again changes nothing that is in place."
    requires_migrations_checks = False

    def handle(self, *args: Any, **options: Any) -> None:
        call_command("migrate", interactive=False, verbosity=0)
        call_command("collectstatic", interactive=False, verbosity=0)
        try:
            version = registry.starter_register()
        except RegistryError as error:
            raise CommandError(str(error)) from error
        password = services.administrator_ensure()
        self.stdout.write(f"Starter weights: {version}")
        self.stdout.write(f"Captioner:       http://{settings.HOST}:{settings.PORT}/")
        self.stdout.write(f"Administration:  http://{settings.HOST}:{settings.PORT}/admin/")
        if password:
            self.stdout.write(
                self.style.SUCCESS(f"Sign in as:      admin / {password}   (shown only this once)")
            )
        else:
            self.stdout.write(
                "Sign in:         as before (`manage.py changepassword admin` sets a new password)"
            )
