"""Caption photos from the command line, without a server and without logging them."""

import json
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError
from tqdm import tqdm

from captioner.captions.local_photos import photos_predict
from captioner.exceptions import CaptionerError, IncompatibleModel, ModelUnavailable
from captioner.inference.types import Prediction
from captioner.intake.limits import SUFFIXES
from captioner.serving.process import serving
from models_registry.exceptions import RegistryError


class Command(BaseCommand):
    help = "Caption photos: files, or folders whose photos are captioned recursively. Exit status 1 if one failed."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("photos", nargs="+", type=Path, metavar="PHOTO")
        parser.add_argument(
            "--format", choices=("text", "jsonl"), default="text", help="default: %(default)s"
        )
        parser.add_argument("--num-captions", type=int, help="captions per photo, best first")
        parser.add_argument("--num-beams", type=int, help="beams to search with; 1 is greedy")
        parser.add_argument("--max-new-tokens", type=int, help="longest caption, in tokens")

    def handle(self, *args: Any, **options: Any) -> None:
        paths = list(_photo_paths(options["photos"]))
        if not paths:
            raise CommandError(f"No photos found; looked for {', '.join(sorted(SUFFIXES))}.")
        wishes = {name: options[name] for name in ("num_captions", "num_beams", "max_new_tokens")}
        try:
            outcomes = photos_predict(paths, **wishes)
            bar = tqdm(outcomes, total=len(paths), unit="photo", disable=None)
            failures = sum(not self._write(path, outcome, options["format"]) for path, outcome in bar)
        except (ValueError, RegistryError, ModelUnavailable, IncompatibleModel) as error:
            raise CommandError(str(error)) from error
        except DatabaseError as error:
            raise CommandError(f"{error}. Has `manage.py setup` been run?") from error
        finally:
            serving.drain(timeout=0)
        if failures:
            raise CommandError(f"{failures} of {len(paths)} photos could not be captioned.")

    def _write(self, path: Path, outcome: Prediction | CaptionerError, output_format: str) -> bool:
        """Write one result to stdout, an error of the text format to stderr; true when there is a caption."""
        if isinstance(outcome, CaptionerError):
            if output_format == "jsonl":
                self.stdout.write(json.dumps({"photo": str(path), "error": str(outcome)}))
            else:
                self.stderr.write(f"{path}: {outcome}")
            return False
        captions = [candidate.caption for candidate in outcome.candidates]
        if output_format == "text":
            self.stdout.write("\t".join([str(path), *captions]))
            return True
        words = [asdict(word) for word in outcome.candidates[0].words]
        row = {"photo": str(path), "caption": captions[0], "alternatives": captions[1:], "words": words}
        self.stdout.write(json.dumps(row | {"model_version": outcome.model_version}, ensure_ascii=False))
        return True


def _photo_paths(arguments: list[Path]) -> Iterator[Path]:
    """Files as they were named, and everything below folders that has a photo's suffix, in a stable order."""
    for path in arguments:
        if path.is_dir():
            yield from sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
        elif path.exists():
            yield path
        else:
            raise CommandError(f"{path} does not exist.")
