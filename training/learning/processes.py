"""One learning run on several GPUs, a process for each: torchrun as a child, `main` in its processes.

All that they need is in files: what to learn in the task file, weights and features under the paths it names. What
they report is the curve and, at the end, the checkpoint, from which their parent goes on.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import torch
from torch import distributed
from torch.distributed.elastic.multiprocessing.errors import record

from training.data.features import PhotoFeatures
from training.descent.checkpoint import checkpoint_step
from training.descent.curve import curve_cut, curve_read
from training.learning.config import LearnConfig
from training.learning.finetune import Correction, Finetuning, Replay, TrainingSet, identity_of
from training.learning.model import FeatureCaptioner
from training.learning.yielding import yield_processor
from training.progress import Tick

MODULE = "training.learning.processes"
TASK = "task.json"
LOG = "processes.log"
LOOK_SECONDS = 0.5
# How torchrun introduces the failure that brought the others down.
FIRST_FAILURE = "Root Cause (first observed failure):"

logger = logging.getLogger(__name__)


class LearningProcessDied(RuntimeError):
    """One of several learning processes failed or was killed, and so the others were ended."""


def process_count(config: LearnConfig) -> int:
    """One process for each GPU that this process may see, but none without a row of every batch; without any, one."""
    return max(1, min(torch.cuda.device_count(), config.batch))


def learn_in_processes(
    base: Path,
    data: TrainingSet,
    config: LearnConfig,
    folder: Path,
    identity: str,
    processes: int,
    tick: Tick,
) -> None:
    """Have `processes` processes do the run that `Finetuning` would do; its last checkpoint is in `folder` afterwards.

    Whatever `tick` raises ends all of them. Raises `LearningProcessDied` and, as `Finetuning` does,
    `CheckpointMismatch`.
    """
    if not isinstance(data.features, PhotoFeatures):
        raise TypeError("Several processes share features by their files: give them as PhotoFeatures.")
    steps, done = data.steps(config), checkpoint_step(folder, identity_of(config, identity))
    if done == steps:
        return
    folder.mkdir(parents=True, exist_ok=True)
    curve_cut(folder, done)
    task = {
        "base": str(base.resolve()),
        "features": [str(path.resolve()) for path in data.features.paths],
        "corrections": data.corrections,
        "replay": data.replay,
        "inner": data.inner,
        "config": asdict(config),
        "identity": identity,
    }
    (folder / TASK).write_text(json.dumps(task), encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    command += ["--nproc-per-node", str(processes), "-m", MODULE, str(folder / TASK)]
    environment = {"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // processes))}
    if not torch.cuda.is_available():
        environment["GLOO_SOCKET_IFNAME"] = "lo"
    with (
        (folder / LOG).open("wb") as log,
        # Its end of standard input closes when this block, or this process, ends: see `_end_with_parent`.
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=os.environ | environment
        ) as torchrun,
    ):
        while torchrun.poll() is None:
            tick("Learning", int(curve[-1]["step"]) if (curve := curve_read(folder)) else done, steps)
            with suppress(subprocess.TimeoutExpired):
                torchrun.wait(LOOK_SECONDS)
    (folder / TASK).unlink()  # what people wrote stays in no file
    if torchrun.returncode:
        said = (folder / LOG).read_text(errors="replace")
        logger.error("The learning processes said:\n%s", said)
        failure = [line.strip() for line in said.rpartition(FIRST_FAILURE)[2].splitlines()]
        told = [line for line in failure if line.strip("=-")] or [f"status {torchrun.returncode}"]
        rank = next((line for line in told if line.startswith("rank")), "")
        raise LearningProcessDied(f"Of {processes} learning processes one failed, {rank}: {told[-1][:500]}")


@record  # for torchrun to tell what the first of them died of
def main(task: Path) -> None:
    """Do one process's share of what the parent wrote into `task`."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    yield_processor(os.nice(0))  # as its parent does: torchrun gives each process a session of its own
    told = json.loads(task.read_text(encoding="utf-8"))
    data = TrainingSet(
        PhotoFeatures([Path(path) for path in told["features"]]),
        [Correction(*row) for row in told["corrections"]],
        [Replay(*row) for row in told["replay"]],
        [Correction(*row) for row in told["inner"]],
    )
    captioner = FeatureCaptioner.load(Path(told["base"]))
    Finetuning(captioner, data, LearnConfig(**told["config"]), task.parent, told["identity"]).run()
    distributed.destroy_process_group()


def _end_with_parent() -> None:
    """End when the parent has, however that ended: it holds the other end of standard input, and never writes."""
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
