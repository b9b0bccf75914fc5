"""Make the bundled anchor set again from the photo sets it was taken from."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from training.exceptions import DatasetError


class Command(BaseCommand):
    help = "Choose the photos that runs hold on to: openly licensed ones with captions by people."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--data", type=Path, required=True, help="folder that holds openstax/ and coco/")

    def handle(self, *, data: Path, **options: Any) -> None:
        from training.data.anchor import FOLDER, anchor_write  # it loads Pillow

        try:
            count = anchor_write(data)
        except (DatasetError, OSError) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"{count} photos in {FOLDER}, credits beside them.")
