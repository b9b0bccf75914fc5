"""Experiments on the learning loop with simulated users; training/EXPERIMENTS.md says what they showed."""

import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand

from models_registry.services import STARTER_DIR

NAMES = ("e1", "e2", "e3", "e4", "e5")


class Command(BaseCommand):
    help = __doc__
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", choices=NAMES)
        parser.add_argument(
            "--data", type=Path, required=True, help="folder that holds flickr8k/ and labelled/"
        )
        parser.add_argument("--folder", type=Path, required=True, help="caches and results")
        parser.add_argument("--base", type=Path, default=STARTER_DIR, help="checkpoint to start from")
        parser.add_argument("--seeds", type=int, default=3, help="repetitions; of e5, how often it is killed")

    def handle(self, *, name: str, **options: Any) -> None:
        # These load torch, which `--help` and other commands must not.
        from training.experiments.bench import bench_open
        from training.experiments.plots import plot
        from training.experiments.runs import EXPERIMENTS, rows_write

        folder: Path = options["folder"]
        bench = bench_open(options["data"], options["base"], folder)
        rows = []
        for row in rows_write(EXPERIMENTS[name](bench, options["seeds"]), folder / f"{name}.jsonl"):
            rows.append(row)
            self.stdout.write(json.dumps(row))
            self.stdout.flush()
        if svg := plot(name, rows):
            (folder / f"{name}.svg").write_text(svg)
