"""Bring a captioning checkpoint from the Hugging Face hub or a folder into the registry."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from captioner.exceptions import CaptionerError
from captioner.importing.checkpoints import checkpoint_import
from models_registry.exceptions import RegistryError


class Command(BaseCommand):
    help = (
        "Load and try an encoder-decoder captioner (BLIP, GIT, VisionEncoderDecoder) from a hub id such as "
        "owner/name or from a folder, then publish it as a version. "
        "Pickled weights become safetensors on the way; nothing in them is run."
    )

    _told = ("", 0)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("source", help="hub id (owner/name) or folder")
        parser.add_argument("--name", help="model name; default: the last part of the source")
        parser.add_argument("--revision", help="commit, tag or branch on the hub; pin a commit in production")
        parser.add_argument(
            "--licence", default="see the model card", help="what the weights may be used for"
        )
        parser.add_argument("--promote", action="store_true", help="serve it: make it the champion")

    def _tell(self, stage: str, done: int, total: int) -> None:
        """A line for each stage, and one for each tenth of what is fetched."""
        tenth = 10 * done // total if total else 0
        if (stage, tenth) != self._told:
            self._told = (stage, tenth)
            how_far = f" {done / 1e9:.2f} of {total / 1e9:.2f} GB" if total else ""
            self.stderr.write(f"{stage.capitalize()}{how_far} ...")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            version, caption, is_new = checkpoint_import(
                options["source"],
                name=options["name"],
                revision=options["revision"],
                licence=options["licence"],
                promote=options["promote"],
                progress=self._tell,
            )
        except (CaptionerError, RegistryError, OSError) as error:
            raise CommandError(str(error)) from error
        except DatabaseError as error:
            raise CommandError(f"{error}. Has `manage.py setup` been run?") from error
        done = "Published" if is_new else "Nothing new, published before:"
        self.stdout.write(f"{done} {version}. On a test image it says: {caption}")
        if options["promote"]:
            self.stdout.write("It is the champion.")
        else:
            self.stdout.write("To make it the champion, run this again with --promote.")
