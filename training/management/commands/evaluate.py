"""How good are weights? Tables beside baselines and people, and a contact sheet of sixty photos."""

import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError
from django.template.loader import render_to_string

from captioner.exceptions import IncompatibleModel
from models_registry.bundled import STARTER_DIR
from models_registry.exceptions import RegistryError
from models_registry.versions import version_fetch, version_get


class Command(BaseCommand):
    help = __doc__
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "weights", nargs="?", default=str(STARTER_DIR), help="a version or a folder; default: the starter"
        )
        parser.add_argument(
            "--data",
            type=Path,
            nargs="+",
            required=True,
            help="photo sets, or a folder of them: tars of image and .json pairs, or folders with captions.jsonl",
        )
        parser.add_argument(
            "--folder",
            type=Path,
            required=True,
            help="gets evaluation.md, evaluation.json, contact_sheet.html",
        )
        parser.add_argument("--photos", type=int, help="at most so many of each split, for a quick look")
        parser.add_argument("--seed", type=int, default=0, help="chooses the photos of the contact sheet")

    def handle(self, *, weights: str, **options: Any) -> None:
        # These load torch, which `--help` and other commands must not.
        from training.data.photo_sets import photo_sets_read
        from training.exceptions import DatasetError
        from training.judging.quality import report
        from training.judging.quality.contact_sheet import sections
        from training.judging.quality.evaluation import evaluate
        from training.progress import Progress

        if options["photos"] is not None and options["photos"] < 1:
            raise CommandError("--photos is a number of photos: at least 1.")
        model, checkpoint = _weights(weights)
        with Progress() as progress:
            try:
                sets = photo_sets_read(options["data"])
                evaluation = evaluate(checkpoint, sets, progress.tick, options["photos"])
            except (DatasetError, IncompatibleModel) as error:
                raise CommandError(str(error)) from error
        folder: Path = options["folder"]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "evaluation.md").write_text(report.markdown(evaluation, model), encoding="utf-8")
        figures = json.dumps(report.to_dict(evaluation, model), indent=1, ensure_ascii=False)
        (folder / "evaluation.json").write_text(figures + "\n", encoding="utf-8")
        shown = sections(evaluation, seed=options["seed"])
        context = {
            "model": model,
            "sections": shown,
            "photos": sum(len(section.entries) for section in shown),
            # The page is one file.
            "stylesheet": (settings.BASE_DIR / "static/captioner.css").read_text(encoding="utf-8"),
        }
        page = render_to_string("training/contact_sheet.html", context)
        (folder / "contact_sheet.html").write_text(page, encoding="utf-8")
        self.stdout.write(report.text(evaluation))
        self.stdout.write(f"Written: {folder / 'evaluation.md'}, evaluation.json, contact_sheet.html")


def _weights(name: str) -> tuple[str, Path]:
    """Returns what the report calls the weights, and the folder they lie in."""
    if Path(name).is_dir():
        return Path(name).resolve().name, Path(name)
    try:
        return name, version_fetch(version_get(name))
    except RegistryError as error:
        raise CommandError(f"{name} is no folder, and no version that can be read: {error}") from error
    except DatabaseError as error:
        raise CommandError(f"{name} is no folder, and versions cannot be looked up: {error}") from error
