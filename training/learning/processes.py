"""One learning run on several GPUs: a process for each, `python -m training.learning.processes TASK_FILE`.

They are plain child processes that accelerate recognises by their environment, as those of `accelerate launch`. Its
launchers for functions are built on Python's multiprocessing, which refuses to start any from a process of a Celery
worker.

All that a child needs is in files: what to learn in the task file, weights and features under the paths it names. What
it reports is the curve and, at the end, the checkpoint, from which its parent goes on.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path

import torch
from accelerate.utils import check_cuda_p2p_ib_support
from accelerate.utils.other import get_free_port

from training.data.features import FeatureFiles
from training.learning.config import LearnConfig
from training.learning.loop import (
    Correction,
    Learning,
    Losses,
    Rating,
    Replay,
    TrainingSet,
    checkpoint_step,
    curve_after,
    curve_cut,
)
from training.learning.model import FeatureCaptioner

COMMAND = (sys.executable, "-m", "training.learning.processes")
TASK = "task.json"
LOOK_SECONDS = 0.5

logger = logging.getLogger(__name__)


class LearningProcessDied(RuntimeError):
    """One of several learning processes failed or was killed, and so the others were ended."""


# --- The parent ---


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
    tick: Callable[[int, int, Losses], None],
) -> None:
    """Have `processes` processes do the run that `Learning` would do; its last checkpoint is in `folder` afterwards.

    `tick(step, steps, losses)` is called for every step, and without losses while there is nothing new. Whatever it
    raises ends all of them. Raises `LearningProcessDied`, and `CheckpointMismatch` as `Learning` does.
    """
    if (done := checkpoint_step(folder, config, identity)) == (steps := data.steps(config)):
        return
    folder.mkdir(parents=True, exist_ok=True)
    curve_cut(folder, done)
    task = folder / TASK
    _task_write(task, base, data, config, identity)
    with ExitStack() as stack:
        children = [_child_start(stack, task, environment) for environment in _environments(processes)]
        while any(child.poll() is None for child in children):
            _failures_raise(children, folder)
            done = _news_tell(folder, done, steps, tick)
            _wait(children)
        _failures_raise(children, folder)
    _news_tell(folder, done, steps, tick)


def _child_start(stack: ExitStack, task: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """A child that does not outlive `stack`."""
    log = stack.enter_context(_log_path(task.parent, int(environment["RANK"])).open("wb"))
    child = subprocess.Popen(
        [*COMMAND, str(task)],
        stdin=subprocess.PIPE,  # see _end_with_parent
        stdout=log,
        stderr=subprocess.STDOUT,
        env={**os.environ, **environment},
    )
    stack.enter_context(child)  # waits for it in the end
    stack.callback(child.kill)  # but kills it first, which costs nothing but the steps since the checkpoint
    return child


def _news_tell(folder: Path, done: int, steps: int, tick: Callable[[int, int, Losses], None]) -> int:
    """Tell what was logged after step `done`, and return the last step; if there is nothing, tell just that."""
    news = curve_after(folder, done)
    for line in news:
        done = int(line.pop("step"))
        tick(done, steps, line)
    if not news:
        tick(done, steps, {})
    return done


def _wait(children: Sequence[subprocess.Popen[bytes]]) -> None:
    with suppress(subprocess.TimeoutExpired):
        next((child for child in children if child.poll() is None), children[0]).wait(LOOK_SECONDS)


def _failures_raise(children: Sequence[subprocess.Popen[bytes]], folder: Path) -> None:
    if not any(child.poll() for child in children):
        return
    # Looked at once more: what brought the others down ended before they did.
    failed = [rank for rank, child in enumerate(children) if child.poll()]
    for rank in failed:
        logger.error(
            "Learning process %d said:\n%s", rank, _log_path(folder, rank).read_text(errors="replace")
        )
    ends = "; ".join(
        f"process {rank} {_end(children[rank].returncode, _log_path(folder, rank))}" for rank in failed
    )
    raise LearningProcessDied(f"Of {len(children)} learning processes: {ends}.")


def _end(code: int, log: Path) -> str:
    if code == -signal.SIGKILL:
        return "was ended by SIGKILL, as the system does where memory runs out"
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    lines = log.read_text(errors="replace").strip().splitlines() or [f"ended with status {code}"]
    return f"failed: {lines[-1][:500]}"


def _environments(processes: int) -> list[dict[str, str]]:
    """What makes accelerate join the processes, on the GPUs, or on the CPU where there is none."""
    together = {
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(get_free_port()),
        "OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // processes)),
    }
    if not torch.cuda.is_available():
        together |= {"ACCELERATE_USE_CPU": "yes", "GLOO_SOCKET_IFNAME": "lo"}
    elif not check_cuda_p2p_ib_support():
        together |= {"NCCL_P2P_DISABLE": "1", "NCCL_IB_DISABLE": "1"}
    return [{**together, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]


def _log_path(folder: Path, rank: int) -> Path:
    return folder / f"process-{rank}.log"


def _task_write(path: Path, base: Path, data: TrainingSet, config: LearnConfig, identity: str) -> None:
    if not isinstance(data.features, FeatureFiles):
        raise TypeError("Several processes share features by their files: give them as FeatureFiles.")
    task = {
        "base": str(base.resolve()),
        "features": [str(part.resolve()) for part in data.features.paths],
        "corrections": data.corrections,
        "ratings": data.ratings,
        "replay": data.replay,
        "config": asdict(config),
        "identity": identity,
    }
    path.write_text(json.dumps(task), encoding="utf-8")


# --- A child ---


def learning_open(task: Path) -> Learning:
    """What the parent wrote into `task`, ready to run as one of several."""
    told = json.loads(task.read_text(encoding="utf-8"))
    data = TrainingSet(
        FeatureFiles(*map(Path, told["features"])),
        [Correction(*row) for row in told["corrections"]],
        [Rating(*row) for row in told["ratings"]],
        [Replay(*row) for row in told["replay"]],
    )
    captioner = FeatureCaptioner.load(Path(told["base"]))
    learning = Learning(captioner, data, LearnConfig(**told["config"]), task.parent, told["identity"])
    if learning.processes != int(os.environ["WORLD_SIZE"]):
        raise RuntimeError(f"Meant to be one of {os.environ['WORLD_SIZE']}, but accelerate found no others.")
    return learning


def main(task: Path) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        learning = learning_open(task)
        learning.run()
        learning.accelerator.end_training()
    except Exception as error:  # noqa: BLE001  told to the parent, in the last line
        traceback.print_exc()
        sys.stderr.write(" ".join("".join(traceback.format_exception_only(error)).split()) + "\n")
        sys.stderr.flush()
        os._exit(1)  # at once: a process group that lost a member may wait for it at a regular end


def _end_with_parent() -> None:
    """End when the parent has, however that ended: it holds the other end of standard input, and never writes."""
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
