"""A learning process to be killed: `python -m tests.benchmarks.experiments.learner BASE BENCH_FOLDER RUN_FOLDER`.

Says "learning" when it begins and the SHA-256 of the weights when it is done; continues from its checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

from training.learning.config import LearnConfig
from training.learning.finetune import Correction, Finetuning, Replay, TrainingSet
from training.learning.model import FeatureCaptioner

ROWS = 64


def main(base: Path, bench: Path, run: Path) -> None:
    logged = json.loads((bench / "logged.json").read_text())[:ROWS]
    features = np.load(bench / "domain.npy", mmap_mode="r")
    corrections = [Correction(index, f"a photo of number {index % 7}") for index in range(len(logged))]
    replay = [Replay(index, caption) for index, caption in enumerate(logged)]
    captioner = FeatureCaptioner.load(base)
    config = LearnConfig(threads=1, batch=4, min_steps=400, max_steps=400, max_passes=25, save_every=3)
    learning = Finetuning(captioner, TrainingSet(features, corrections, replay), config, run, "kill me")
    _say("learning")
    learning.run()
    captioner.save(run / "candidate")
    _say(hashlib.sha256((run / "candidate/model.safetensors").read_bytes()).hexdigest())


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
