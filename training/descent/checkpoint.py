"""Checkpoints of a descent: one safetensors file, so that nothing stored is ever unpickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from models_registry.files import file_write_atomically

CHECKPOINT = "checkpoint.safetensors"


class CheckpointMismatch(ValueError):
    """The folder holds the checkpoint of another run: other data or other settings."""


def checkpoint_write(folder: Path, tensors: Mapping[str, Tensor], step: int, identity: Any) -> None:
    """Replace the checkpoint in `folder`; `identity`, plain JSON, must agree for the run to be continued."""
    # How filters lie in memory decides how sums over them are rounded.
    channels_last = [name for name, each in tensors.items() if each.ndim == 4 and not each.is_contiguous()]
    facts = {"step": str(step), "identity": _canonical(identity), "channels_last": json.dumps(channels_last)}
    with file_write_atomically(folder / CHECKPOINT) as draft:
        save_file({name: each.detach().contiguous() for name, each in tensors.items()}, draft, facts)


def checkpoint_step(folder: Path, identity: Any) -> int:
    """The step after which the checkpoint in `folder` was written, 0 without one. Raises `CheckpointMismatch`."""
    path = folder / CHECKPOINT
    if not path.exists():
        return 0
    with safe_open(path, "pt") as file:
        facts = file.metadata()
    if facts["identity"] != _canonical(identity):
        raise CheckpointMismatch(
            f"{path} belongs to a run with other data or settings: choose another folder or delete it."
        )
    return int(facts["step"])


def checkpoint_read(folder: Path) -> dict[str, Tensor]:
    """The tensors as `checkpoint_write` was given them, on the CPU."""
    with safe_open(folder / CHECKPOINT, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
        for name in json.loads(file.metadata()["channels_last"]):
            tensors[name] = tensors[name].contiguous(memory_format=torch.channels_last)
    return tensors


def _canonical(identity: Any) -> str:
    return json.dumps(identity, sort_keys=True)
