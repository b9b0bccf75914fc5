"""A learning process as `training.learning.processes` starts it; takes its time and leaves what tests look at."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from safetensors.torch import save_file

from training.learning import loop, processes
from training.learning.loop import Learning, Losses

descend, save, run = Learning._descend, Learning.save, Learning.run


def descend_slowly(learning: Learning) -> Losses:
    time.sleep(float(os.environ.get("STEP_SECONDS", "0")))
    return descend(learning)


def save_and_tell(learning: Learning) -> None:
    (learning.folder / f"saved-by-{learning.rank}").touch()
    save(learning)


def run_and_show(learning: Learning) -> None:
    run(learning)
    weights = {name: parameter.detach() for name, parameter in learning.trained.items()}
    save_file(weights, learning.folder / f"weights-{learning.rank}.safetensors")


if __name__ == "__main__":
    loop.bf16_is_fast = lambda: False  # rounding would hide whether the sums are right
    Learning._descend, Learning.save, Learning.run = descend_slowly, save_and_tell, run_and_show
    processes.main(Path(sys.argv[1]))
