"""Pickled weights -> safetensors. The pickle is read by a process of its own; see `unpickle`."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from captioner.exceptions import IncompatibleModel

_PROGRAM = Path(__file__).with_name("unpickle.py")
_MEMORY = 1 << 30  # bytes beside twice the file: old pickles are read whole
_SECONDS = 120  # of the processor, beside those for each byte
_BYTES_PER_SECOND = 10_000_000  # a slow disk's


def pickles_convert(pickles: Iterable[Path], folder: Path) -> None:
    """Write the tensors of `pickles`, the shards of one checkpoint, to `folder` as transformers names them.

    Raises `IncompatibleModel` for a file that is damaged, hostile, or no plain set of tensors; nothing in it is run.
    """
    targets = []
    for pickle in pickles:
        target = folder / pickle.name.replace("pytorch_model", "model").replace(".bin", ".safetensors")
        _pickle_convert(pickle, target)
        targets.append(target)
    if len(targets) > 1:
        places = {name: target.name for target in targets for name in tensor_names(target)}
        index = {"metadata": {"total_size": sum(target.stat().st_size for target in targets)}}
        text = json.dumps(index | {"weight_map": places}, indent=2, sort_keys=True)
        (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")


def tensor_names(weights: Path) -> list[str]:
    """The names of the tensors in a safetensors file. Raises `IncompatibleModel` for one that is damaged."""
    try:
        with weights.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > weights.stat().st_size:
                raise ValueError("it ends within its header")
            header = json.loads(file.read(length))
        return [name for name in header if name != "__metadata__"]
    except (ValueError, TypeError) as error:
        raise IncompatibleModel(f"{weights.name} is damaged: {error}.") from error


def _pickle_convert(pickle: Path, target: Path) -> None:
    size = pickle.stat().st_size
    seconds = _SECONDS + size // _BYTES_PER_SECOND
    command = [
        sys.executable,
        "-I",
        f"{_PROGRAM}",
        f"{pickle}",
        f"{target}",
        f"{2 * size + _MEMORY}",
        f"{seconds}",
    ]
    ended = None
    with contextlib.suppress(subprocess.TimeoutExpired):
        ended = subprocess.run(  # the machine may be busy, so that a second takes longer
            command,
            env={"OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=5 * seconds,
            check=False,
        )
    if ended and ended.returncode == 0:
        return
    told = ended.stdout.decode(errors="replace").strip()[:1000] if ended else ""
    raise IncompatibleModel(
        f"{pickle.name} cannot be converted: {told or 'it takes more memory or time than a file of its size may'}."
    )
