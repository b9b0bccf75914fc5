"""The database of the embedded default."""

import sqlite3
from pathlib import Path

import pytest

from captioner.ops.sqlite import FolderMakingConnection


def test_the_folder_of_a_new_database_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "data" / "captioner.sqlite3"
    FolderMakingConnection(str(path)).close()
    assert path.exists()
    assert path.parent.stat().st_mode & 0o077 == 0


def test_a_folder_that_cannot_be_made_is_told_by_the_database(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(sqlite3.OperationalError, match="unable to open database file"):
        FolderMakingConnection(str(tmp_path / "file" / "captioner.sqlite3"))


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("%собака%", "Собака БЕЖИТ", True),
        ("%MÄDCHEN%", "Ein Mädchen", True),
        ("%STRASSE%", "an der Straße", True),
        ("%a_c%", "xABCx", True),
        ("%a\\_c%", "abc", False),
        ("%100\\%%", "all 100% wool", True),
        ("%a.c%", "abc", False),
        ("%b%", None, None),
        ("%two%", "one\ntwo", True),
    ],
)
def test_like_knows_the_cases_of_all_letters(pattern: str, text: str | None, found: bool | None) -> None:
    database = FolderMakingConnection(":memory:")
    [answer] = database.execute(r"SELECT ? LIKE ? ESCAPE '\'", [text, pattern]).fetchone()
    assert answer == found
