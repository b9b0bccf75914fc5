import os
from pathlib import Path

import pytest
from django.core.files.base import ContentFile

from captioner.ops.storage import AtomicFileSystemStorage


@pytest.fixture
def storage(tmp_path: Path) -> AtomicFileSystemStorage:
    return AtomicFileSystemStorage(location=tmp_path, allow_overwrite=True)


def files(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in tmp_path.rglob("*") if path.is_file())


def test_a_file_is_saved_under_its_name_and_can_be_overwritten(storage, tmp_path: Path) -> None:
    storage.save("a/b.txt", ContentFile(b"one"))
    assert storage.save("a/b.txt", ContentFile(b"two")) == "a/b.txt"
    assert (tmp_path / "a" / "b.txt").read_bytes() == b"two"
    assert files(tmp_path) == ["b.txt"]


def test_a_failed_write_leaves_the_old_content_and_no_draft(storage, tmp_path: Path, monkeypatch) -> None:
    storage.save("b.txt", ContentFile(b"one"))

    def disk_full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(OSError, match="No space left"):
        storage.save("b.txt", ContentFile(b"two"))
    assert (tmp_path / "b.txt").read_bytes() == b"one"
    assert files(tmp_path) == ["b.txt"]
