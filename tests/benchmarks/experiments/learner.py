"""A learning process to be killed: `python -m tests.benchmarks.experiments.learner DATA BASE BENCH_FOLDER RUN_FOLDER`.

Says "learning" when it begins and the SHA-256 of the candidate when it is done; continues from its checkpoint.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from tests.benchmarks.experiments.bench import bench_open
from training.learning.config import LearnConfig

ROWS = 80
# Many checkpoints, and more patience than it takes: the process is to live long enough to be killed often.
CONFIG = LearnConfig(threads=1, passes=20.0, patience=100, save_every=2)


def main(data: Path, base: Path, folder: Path, run: Path) -> None:
    bench = bench_open(data, base, folder)
    _say("learning")
    corrections = bench.corrections(min(ROWS, len(bench.photos) - bench.held_out), 0)
    captioner, _ = bench.learn(corrections, 0, CONFIG, run)
    captioner.save(run / "candidate")
    _say(hashlib.sha256((run / "candidate/model.safetensors").read_bytes()).hexdigest())


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
