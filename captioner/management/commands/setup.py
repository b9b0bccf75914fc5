"""Make a database and a store ready to serve: schema, bucket, static files, starter weights, an administrator."""

import os
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser

from captioner.captions.accounts import administrator_ensure
from captioner.exceptions import ImportRefused, ServersUnavailable
from captioner.importing.services import import_wanted
from captioner.ops.dependencies import servers_wait
from captioner.ops.static import static_files_collect
from captioner.ops.storage import data_dir_close, data_dir_ensure
from models_registry import bundled
from models_registry.exceptions import RegistryError


class Command(BaseCommand):
    help = "Prepare everything the service needs to start. Running it again changes nothing that is in place."
    requires_migrations_checks = False

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--wait",
            type=float,
            default=0,
            metavar="SECONDS",
            help="how long to wait for the database and the S3 store to answer (default: not at all)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        umask = os.umask(0o077)  # photos and the database are nobody else's business
        data_dir_ensure()
        data_dir_close()
        str(settings.SECRET_KEY)  # made now, where there is none
        try:
            servers_wait(options["wait"])
            call_command("migrate", interactive=False, verbosity=0)
            if not settings.STATIC_COLLECTED:
                static_files_collect()
            version = bundled.starter_register()
            wanted = import_wanted()
        except (ServersUnavailable, ImportRefused, RegistryError) as error:
            raise CommandError(str(error)) from error
        finally:
            os.umask(umask)
        password = administrator_ensure()
        address = f"http://{settings.HOST}:{settings.PORT}"
        if settings.PRODUCTION and settings.ALLOWED_HOSTS:
            address = f"https://{settings.ALLOWED_HOSTS[0]}"
        self.stdout.write(f"Starter weights: {version}")
        if wanted is not None:
            self.stdout.write(
                f"Wanted:          {wanted}, fetched in the background and served once it was tried"
            )
        self.stdout.write(f"Captioner:       {address}/")
        self.stdout.write(f"Administration:  {address}/admin/")
        if password:
            self.stdout.write(
                self.style.SUCCESS(f"Sign in as:      admin / {password}   (shown only this once)")
            )
        else:
            self.stdout.write(
                "Sign in:         as before (`manage.py changepassword admin` sets a new password)"
            )
