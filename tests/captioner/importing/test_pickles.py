"""Pickles are read by a process of their own; what is hostile runs nothing and leaves nothing."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from captioner.exceptions import IncompatibleModel
from captioner.importing import pickles, unpickle
from captioner.importing.pickles import pickles_convert


class Hostile:
    """Whoever unpickles it in the usual way runs a command."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self._marker}",)


def save(tmp_path: Path, content: object, **options: Any) -> Path:
    torch.save(content, tmp_path / "pytorch_model.bin", **options)
    return tmp_path / "pytorch_model.bin"


def refusal(pickle: Path) -> str:
    """What the program says of it, in this process: its torch is loaded already."""
    try:
        unpickle.safetensors_write(torch, unpickle.tensors_read(torch, pickle), pickle.with_name("out"))
    except unpickle.Refused as error:
        return str(error)
    except Exception as error:  # noqa: BLE001  as the program does
        return unpickle.error_told(error)
    return ""


def test_a_hostile_pickle_runs_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "it ran"
    folder = tmp_path / "converted"
    folder.mkdir()
    pickle = save(tmp_path, {"weight": Hostile(marker)})
    with pytest.raises(
        IncompatibleModel, match=r"pytorch_model\.bin cannot be converted: it asks for posix\.system"
    ):
        pickles_convert([pickle], folder)
    assert not marker.exists()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"weight": torch.zeros(1).expand(100_000, 100_000)}, "its tensors claim to be larger than the file"),
        ({str(n): torch.zeros(1).expand(10_000) for n in range(500)}, "claim to be larger than the file"),
        ({"weight": torch.zeros(9, dtype=torch.complex64)}, "is of torch.complex64"),
        ({"weight": torch.zeros(3, 3).to_sparse()}, "is no plain tensor"),
        ({"weight": 3}, "is a int and not a tensor"),
        ({3: torch.zeros(1)}, "is a Tensor and not a tensor"),
        ([torch.zeros(1)], "it holds a list"),
        ({}, "it holds a dict"),
    ],
)
def test_what_is_no_set_of_weights_is_refused(
    tmp_path: Path, content: object, complaint: str, zipped: bool
) -> None:
    assert complaint in refusal(save(tmp_path, content, _use_new_zipfile_serialization=zipped))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_hostile_pickle_is_named_by_what_it_asks_for(tmp_path: Path, zipped: bool) -> None:
    marker = tmp_path / "it ran"
    pickle = save(tmp_path, {"a": Hostile(marker)}, _use_new_zipfile_serialization=zipped)
    assert "it asks for posix.system" in refusal(pickle)
    assert not marker.exists()


@pytest.mark.parametrize("kept", [0, 5, 0.5, -100])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_truncated_file_is_refused(tmp_path: Path, kept: float, zipped: bool) -> None:
    pickle = save(tmp_path, {"a": torch.rand(1000)}, _use_new_zipfile_serialization=zipped)
    whole = pickle.read_bytes()
    pickle.write_bytes(whole[: kept if isinstance(kept, int) else int(len(whole) * kept)])
    assert "it is damaged" in refusal(pickle)


@pytest.mark.parametrize("zipped", [True, False])
def test_every_type_and_shape_of_weights_is_kept_to_the_bit(tmp_path: Path, zipped: bool) -> None:
    types = (
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.uint8,
    )
    weights = {f"{kind}": (torch.randn(3, 5) * 9).to(kind) for kind in types}
    shared = torch.randn(4, 6)
    weights |= {"scalar": torch.tensor(3.5), "none": torch.zeros(0, 4), "mask": torch.eye(3).bool()}
    weights |= {"turned": shared.T, "row": shared[1], "tied": shared, "odd": torch.zeros(3, dtype=torch.int8)}
    assert not refusal(save(tmp_path, weights, _use_new_zipfile_serialization=zipped))
    with safe_open(tmp_path / "out", "pt") as read:
        assert read.metadata() == {"format": "pt"}
        assert set(read.keys()) == set(weights)
        for name, tensor in weights.items():
            kept = read.get_tensor(name)
            assert kept.dtype == tensor.dtype
            assert kept.shape == tensor.shape
            assert torch.equal(kept, tensor)


_REACHES_OUT = """
import pathlib, socket, subprocess, sys
sys.path.insert(0, sys.argv[1])
import unpickle
unpickle.writes_forbid(pathlib.Path(sys.argv[2]))
open(sys.argv[2], "wb").close()
for attempt in (
    lambda: socket.create_connection(("127.0.0.1", 9)),
    lambda: subprocess.run(["true"]),
    lambda: open(sys.argv[2] + ".other", "w"),
    lambda: pathlib.Path(sys.argv[2]).unlink(),
):
    try:
        attempt()
    except PermissionError as error:
        print(error)
"""


def test_the_program_reaches_nothing_but_what_it_writes(tmp_path: Path) -> None:
    program = Path(unpickle.__file__).parent
    told = subprocess.check_output(
        [sys.executable, "-c", _REACHES_OUT, str(program), str(tmp_path / "out")], text=True
    )
    assert [line.split()[2] for line in told.splitlines()] == [
        "socket.getaddrinfo",
        "subprocess.Popen",
        "to",
        "os.remove",
    ]


def test_a_program_that_takes_too_much_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    greedy = tmp_path / "greedy.py"
    greedy.write_text(
        f"import sys; sys.path.insert(0, {str(Path(unpickle.__file__).parent)!r})\n"
        "import unpickle; unpickle.limits_set(1 << 26, 10, 1 << 20); bytearray(1 << 28)"
    )
    monkeypatch.setattr(pickles, "_PROGRAM", greedy)
    pickle = tmp_path / "pytorch_model.bin"
    pickle.write_bytes(b"")
    with pytest.raises(IncompatibleModel, match="more memory or time than a file of its size may"):
        pickles_convert([pickle], tmp_path)
