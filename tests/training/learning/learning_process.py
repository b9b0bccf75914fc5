"""A learning process as torchrun starts it; takes its time and leaves what tests look at."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from safetensors.torch import save_file
from torch import distributed

from training.descent import loop
from training.descent.curve import Figures
from training.learning import finetune, processes
from training.learning.finetune import Finetuning

gradients, run, write = Finetuning.gradients, Finetuning.run, loop.checkpoint_write


def gradients_slowly(learning: Finetuning, step: int) -> Figures:
    time.sleep(float(os.environ.get("STEP_SECONDS", "0")))
    return gradients(learning, step)


def write_and_tell(folder: Path, *checkpoint: object) -> None:
    (folder / f"saved-by-{distributed.get_rank()}").touch()
    write(folder, *checkpoint)


def run_and_show(learning: Finetuning) -> None:
    run(learning)
    weights = {name: parameter.detach() for name, parameter in learning.descent.trained.items()}
    save_file(weights, learning.descent.folder / f"weights-{learning.rank}.safetensors")


if __name__ == "__main__":
    finetune.bf16_is_fast = lambda: False  # rounding would hide whether the sums are right
    Finetuning.gradients, Finetuning.run = gradients_slowly, run_and_show
    loop.checkpoint_write = write_and_tell
    processes.main(Path(sys.argv[1]))
