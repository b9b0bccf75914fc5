import tarfile
from pathlib import Path

import pytest

from training.checks import check_photo_sets


@pytest.fixture
def photo_set(tmp_path: Path) -> Path:
    with tarfile.open(tmp_path / "photos.tar", "w"):
        pass
    (tmp_path / "captions.jsonl").touch()
    (tmp_path / "notes.txt").write_text("no photos")
    return tmp_path


@pytest.mark.parametrize("name", ["", "photos.tar", "."])
def test_no_photo_set_and_every_kind_of_them_are_fine(settings, photo_set: Path, name: str) -> None:
    settings.TRAINING_ORIGINAL_PHOTOS = settings.TRAINING_REPLAY_PHOTOS = (
        str(photo_set / name) if name else ""
    )
    assert check_photo_sets(None) == []


@pytest.mark.parametrize("name", ["missing", "notes.txt", "captions.jsonl"])
def test_what_is_no_photo_set_is_told(settings, photo_set: Path, name: str) -> None:
    settings.TRAINING_ORIGINAL_PHOTOS = settings.TRAINING_REPLAY_PHOTOS = str(photo_set / name)
    found = check_photo_sets(None)
    assert [message.id for message in found] == ["training.W001", "training.W002"]
    assert "TRAINING_ORIGINAL_PHOTOS" in found[0].msg
    assert str(photo_set / name) in found[0].msg
