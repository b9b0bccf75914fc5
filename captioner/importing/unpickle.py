"""A pickle of weights -> safetensors, in a bare process: `python -I unpickle.py PICKLE TARGET MEMORY SECONDS`.

Nothing in the pickle is trusted. torch reads it with `weights_only=True`, which makes tensors and runs nothing; should
that fail one day, this process holds no secret, has no network, starts no program, writes no file but `TARGET`, and
ends when it takes more than `MEMORY` bytes beyond torch itself, or `SECONDS` of the processor. What went wrong is one
line on standard output. Nothing of this project is imported here.
"""

import contextlib
import ctypes
import json
import os
import re
import resource
import struct
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_FORBIDDEN = (  # audit events, see the table in Python's documentation
    *("socket.", "subprocess.", "os.exec", "os.fork", "os.spawn", "os.posix_spawn", "os.system", "ctypes."),
    *("os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "shutil."),
)


class Refused(Exception):
    """What the pickle holds is no plain set of weights."""


def main() -> None:
    pickle, target, memory, seconds = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    # Without rights to it this fails, and the audit hook alone keeps the network away.
    ctypes.CDLL(None).unshare(_CLONE_NEWUSER | _CLONE_NEWNET)  # only while there is a single thread
    import torch  # before the limits, which count from here

    torch.set_num_threads(1)
    limits_set(memory, seconds, written=2 * pickle.stat().st_size + (64 << 20))
    writes_forbid(target)
    try:
        tensors = tensors_read(torch, pickle)
        safetensors_write(torch, tensors, target)
    except Refused as error:
        told = str(error)
    except MemoryError:
        told = "it takes more memory than a file of its size may"
    except Exception as error:  # noqa: BLE001  damaged and hostile files make torch raise almost anything
        told = error_told(error)
    else:
        return
    sys.stdout.write(told)
    sys.exit(1)


def limits_set(memory: int, seconds: int, written: int) -> None:
    """Bounds of this process from now on: more bytes of memory than now, seconds of the processor, bytes per file."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_FSIZE, (written, written))
    with contextlib.suppress(OSError):  # a system that does not say what a process has
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        most = pages * os.sysconf("SC_PAGE_SIZE") + memory
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def writes_forbid(target: Path) -> None:
    """From now on whatever reaches out of this process raises `PermissionError`, but for writing `target`."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event.startswith(_FORBIDDEN):
            raise PermissionError(f"it tried {event}")
        if event == "open":
            path, _, flags = arguments
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and path != str(target):
                raise PermissionError(f"it tried to write {path!r}")

    sys.addaudithook(hook)


def tensors_read(torch: Any, pickle: Path) -> dict[str, Any]:
    """The tensors of a `state_dict`, on the CPU. Raises `Refused`, and what torch raises."""
    # What torch saves since 1.6 is a ZIP archive, whose tensors are read from the file when they are written.
    loaded = torch.load(pickle, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(pickle))
    if not isinstance(loaded, Mapping) or not loaded:
        raise Refused(f"it holds a {type(loaded).__name__} and not tensors by name")
    size = pickle.stat().st_size
    taken = 0
    for name, tensor in loaded.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise Refused(f"{str(name)[:100]!r} is a {type(tensor).__name__} and not a tensor")
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            raise Refused(f"{name[:100]!r} is no plain tensor")
        taken += tensor.numel() * tensor.element_size()
        # Twice: weights that share their place in the pickle are written one by one.
        if taken > 2 * size:
            raise Refused("its tensors claim to be larger than the file")
    return dict(loaded)


def safetensors_write(torch: Any, tensors: Mapping[str, Any], target: Path) -> None:
    """One tensor at a time, so that never all are in memory. Raises `Refused` for a type that has no name there.

    The format: 8 bytes with the length of a header, the header as JSON, and the bytes of the tensors.
    """
    names = {
        torch.float64: "F64",
        torch.float32: "F32",
        torch.float16: "F16",
        torch.bfloat16: "BF16",
        torch.int64: "I64",
        torch.int32: "I32",
        torch.int16: "I16",
        torch.int8: "I8",
        torch.uint8: "U8",
        torch.bool: "BOOL",
    }
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    # The widest first, so that each lies at a multiple of its width.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    offset = 0
    for name, tensor in ordered:
        if tensor.dtype not in names or name == "__metadata__":
            raise Refused(f"{name[:100]!r} is of {tensor.dtype}, which weights are not")
        end = offset + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": names[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with target.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, tensor in ordered:
            file.write(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().data)


def error_told(error: Exception) -> str:
    """What torch or Python raised, in half a sentence."""
    told = " ".join(str(error).split()) or type(error).__name__
    if asked := re.search(r"GLOBAL ([\w.]+)", told):
        return f"it asks for {asked[1]}, which no weights need"
    if "allocate memory" in told:
        return "it takes more memory than a file of its size may"
    told = told.rpartition("WeightsUnpickler error:")[2].strip()[:500].rstrip(".")
    return f"it is damaged, or holds no weights ({told})"


if __name__ == "__main__":
    main()
