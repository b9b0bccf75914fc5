"""Files appear whole or not at all, whoever writes them, and whatever ends the writer."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from models_registry.files import file_sha256, file_write_atomically
from tests.house import ROOT


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_takes_its_place_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "new" / "facts.json"
    with file_write_atomically(path) as draft:
        draft.write_text("{}")
        assert not path.exists()
    assert (path.read_text(), names(path.parent)) == ("{}", ["facts.json"])
    assert path.stat().st_mode & 0o077 == 0


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    path.write_text("old")

    def fail_half_way() -> None:
        with file_write_atomically(path) as draft:
            draft.write_text("half of the n")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert (path.read_text(), names(tmp_path)) == ("old", ["facts.json"])


def test_of_several_writers_who_replace_nothing_the_first_wins(tmp_path: Path) -> None:
    path = tmp_path / "key"

    def write(text: str, meanwhile: Callable[[], None] = lambda: None) -> None:
        with file_write_atomically(path, replace=False, several_writers=True) as draft:
            draft.write_text(text)
            meanwhile()

    with pytest.raises(FileExistsError):
        write("second", meanwhile=lambda: write("first"))
    assert (path.read_text(), names(tmp_path)) == ("first", ["key"])


def test_a_killed_writer_leaves_the_old_file_and_no_growing_heap(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    path.write_text("old")
    killed = (
        "import os, sys; from pathlib import Path; from models_registry.files import file_write_atomically\n"
        "with file_write_atomically(Path(sys.argv[1])) as draft: draft.write_text('ha'); os.kill(os.getpid(), 9)"
    )
    for _ in range(2):
        subprocess.run([sys.executable, "-c", killed, str(path)], cwd=ROOT, check=False)
    assert path.read_text() == "old"
    assert len(names(tmp_path)) == 2
    with file_write_atomically(path) as draft:
        draft.write_text("new")
    assert (path.read_text(), names(tmp_path)) == ("new", ["facts.json"])


def test_the_hash_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert (
        file_sha256(tmp_path / "empty") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )
