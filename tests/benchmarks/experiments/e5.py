"""E5: a learning process is killed with SIGKILL at random moments; are the weights the same in the end?

`--seeds` says how often it is killed. What is learned stops early and is averaged with the base, as in a run.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]


def run(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    expected, _, _ = _learn(options, "whole", kills=0)
    actual, killed, starts = _learn(options, "killed", kills=options.seeds)
    yield {"kills": killed, "starts": starts, "same_weights": actual == expected, "sha256": actual}


def _learn(options: argparse.Namespace, name: str, kills: int) -> tuple[str, int, int]:
    """Learn in processes, the first `kills` of which are killed; SHA-256 of the weights, kills, starts."""
    folder = options.folder / f"e5-{name}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    arguments = [str(path.resolve()) for path in (options.data, options.base, options.folder, folder)]
    generator, killed, starts = random.Random(1), 0, 0
    while True:
        starts += 1
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.experiments.learner", *arguments],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert child.stdout is not None
        child.stdout.readline()  # it says when it begins to learn
        if killed < kills:
            time.sleep(generator.uniform(0.2, 2.0))
            if child.poll() is None:
                child.send_signal(signal.SIGKILL)
                killed += 1
                child.wait()
                continue
        output = child.communicate()[0]
        if child.returncode:
            raise RuntimeError(f"The learning process ended by itself with status {child.returncode}.")
        return output.split()[-1], killed, starts
