import hashlib
from pathlib import Path

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import Storage, storages

from captioner.exceptions import BackupCorrupt
from captioner.ops import backup


@pytest.fixture
def store() -> None:
    storages["default"].save("ab/abc.jpg", ContentFile(b"a photo"))
    storages["weights"].save("versions/v1/model.safetensors", ContentFile(b"weights"))
    storages["weights"].save("versions/v1/manifest.json", ContentFile(b"{}"))
    storages["uploads"].save("job/000000", ContentFile(b"as it was sent"))


@pytest.fixture
def copy(store: None, tmp_path: Path) -> Path:
    folder = tmp_path / "backup"
    list(backup.objects_export(folder))
    return folder


def test_a_backup_holds_every_object_and_its_hash(copy: Path) -> None:
    assert (copy / "photos/ab/abc.jpg").read_bytes() == b"a photo"
    assert (copy / "weights/versions/v1/model.safetensors").read_bytes() == b"weights"
    line = f"{hashlib.sha256(b'a photo').hexdigest()}  photos/ab/abc.jpg"
    assert line in (copy / "objects.sha256").read_text().splitlines()


def test_an_empty_store_makes_an_empty_backup(tmp_path: Path) -> None:
    assert list(backup.objects_export(tmp_path / "backup")) == []
    assert list(backup.objects_import(tmp_path / "backup")) == []


def test_a_second_backup_fetches_only_what_is_new(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storages["default"].save("cd/cde.jpg", ContentFile(b"another"))
    fetched = []
    fetch = backup._fetch
    monkeypatch.setattr(backup, "_fetch", lambda *args: fetched.append(args[1]) or fetch(*args))
    list(backup.objects_export(copy))
    assert fetched == ["cd/cde.jpg"]
    assert (copy / "photos/cd/cde.jpg").is_file()


def test_what_was_deleted_leaves_the_backup(copy: Path) -> None:
    storages["default"].delete("ab/abc.jpg")
    list(backup.objects_export(copy))
    assert not (copy / "photos/ab/abc.jpg").exists()
    assert "abc.jpg" not in (copy / "objects.sha256").read_text()


def test_what_is_deleted_during_a_backup_is_no_error(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storages["default"].save("cd/cde.jpg", ContentFile(b"another"))
    names = backup.stored_names
    listed = {alias: list(names(storages[alias])) for alias in ("uploads", "default", "weights")}
    monkeypatch.setattr(backup, "stored_names", lambda storage: listed[alias_of(storage)])
    storages["default"].delete("cd/cde.jpg")
    list(backup.objects_export(copy))
    assert "cde.jpg" not in (copy / "objects.sha256").read_text()
    assert "abc.jpg" in (copy / "objects.sha256").read_text()


def alias_of(storage: Storage) -> str:
    return next(alias for alias in ("uploads", "default", "weights") if storages[alias] is storage)


def test_a_job_that_is_done_leaves_nothing_in_the_backup(copy: Path) -> None:
    assert (copy / "uploads/job/000000").read_bytes() == b"as it was sent"
    storages["uploads"].delete("job/000000")
    list(backup.objects_export(copy))
    assert list((copy / "uploads").iterdir()) == []


def test_a_restore_puts_everything_back_manifests_last(copy: Path) -> None:
    storages["default"].delete("ab/abc.jpg")
    storages["weights"].delete("versions/v1/model.safetensors")
    restored = list(backup.objects_import(copy))
    assert restored[-1] == "weights/versions/v1/manifest.json"
    assert storages["default"].open("ab/abc.jpg").read() == b"a photo"
    assert storages["weights"].open("versions/v1/model.safetensors").read() == b"weights"


def test_a_damaged_or_missing_file_is_refused(copy: Path) -> None:
    (copy / "photos/ab/abc.jpg").write_bytes(b"a phot0")
    with pytest.raises(BackupCorrupt, match=r"abc\.jpg is missing or damaged"):
        list(backup.objects_import(copy))
    (copy / "photos/ab/abc.jpg").unlink()
    with pytest.raises(BackupCorrupt, match=r"abc\.jpg is missing or damaged"):
        list(backup.objects_import(copy))


def test_an_unfinished_backup_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackupCorrupt, match="no finished backup"):
        list(backup.objects_import(tmp_path))
