"""Measure how fast this machine captions: without a server, through the service, through other servers."""

import signal
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from captioner.benchmark import BenchmarkError, Plan, benchmark_run
from models_registry import services as registry
from models_registry.exceptions import NoChampion, RegistryError


class Command(BaseCommand):
    help = (
        "Compare a bare `generate()` loop, the engine and the whole service, all with the weights that serve "
        "now, and print tables. This takes minutes and all cores: leave the machine alone meanwhile. The "
        "service that is measured is a second one with a database and folders of its own, removed afterwards."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--photos", type=Path, metavar="FOLDER", help="JPEG files; default: drawn ones")
        parser.add_argument("--rounds", type=int, default=5, help="turns of each; default: %(default)s")
        parser.add_argument(
            "--peer",
            type=Path,
            action="append",
            default=[],
            metavar="SCRIPT",
            help="another server, started as `python SCRIPT WEIGHTS PORT MAX_NEW_TOKENS`; may be repeated",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["rounds"] < 1:
            raise CommandError(f"--rounds must be at least 1, not {options['rounds']}.")
        for path in filter(None, (options["photos"], *options["peer"])):
            if not path.exists():
                raise CommandError(f"{path} does not exist.")
        try:
            weights, model_version = _weights()
            plan = Plan(
                weights=weights,
                model_version=model_version,
                precision=settings.CAPTION_PRECISION,
                scratch=settings.DATA_DIR,
                photos=options["photos"],
                peers=options["peer"],
                rounds=options["rounds"],
            )
            # TERM ends what is started, as Ctrl-C does.
            signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
            self.stdout.write(benchmark_run(plan))
        except (BenchmarkError, RegistryError) as error:
            raise CommandError(str(error)) from error


def _weights() -> tuple[Path, str]:
    """Folder and name of the version that serves, or of the bundled starter where nothing was set up yet."""
    try:
        version = registry.champion_get()
    except NoChampion:
        return registry.STARTER_DIR, "The bundled starter"
    return registry.version_fetch(version), version.pk
