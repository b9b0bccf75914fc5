"""Captions the golden photos with a checkpoint, in a process: `python -m training.judging.golden FOLDER`.

The golden photos are drawn, the same on every machine, so that none has to be shipped.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch

from captioner.inference.drawings import drawn_images
from captioner.inference.predictor import Predictor

PHOTOS = 12
TIMEOUT_SECONDS = 600


def golden_captions(folder: Path) -> list[str]:
    """Returns captions of the golden photos by the checkpoint in `folder`, made as the service makes them."""
    predictor = Predictor.load(folder, model_version=folder.name, num_threads=1)
    pixels = torch.stack([predictor.preprocess(image) for image in drawn_images(PHOTOS)])
    return [best.caption for best, *_ in predictor.predict(pixels, predictor.default_parameters)]


def golden_check(folder: Path) -> tuple[bool, str]:
    """Returns whether a new process can load `folder` and caption every golden photo, and what was seen."""
    try:
        result = subprocess.run(
            [sys.executable, "-m", "training.judging.golden", str(folder)],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False, f"no captions within {TIMEOUT_SECONDS} s"
    if result.returncode != 0:
        lines = result.stderr.strip().splitlines() or ["the process died without a word"]
        return False, lines[-1][:300]
    captions = json.loads(result.stdout.splitlines()[-1])
    empty = sum(not caption.strip() for caption in captions)
    return empty == 0, f"{len(captions) - empty} of {len(captions)} captioned"


if __name__ == "__main__":
    print(json.dumps(golden_captions(Path(sys.argv[1]))))  # noqa: T201  read by the parent process
