"""SQLite as the embedded default uses it."""

import contextlib
import re
import sqlite3
from functools import lru_cache
from pathlib import Path
from typing import Any

from captioner.captions.text import has_words


class FolderMakingConnection(sqlite3.Connection):
    """A connection whose database's folder is made where it is missing, and which searches in any letter case.

    Whichever command comes first opens the database, `migrate` for one before any system check of ours has run.
    """

    def __init__(self, database: str, *args: Any, **kwargs: Any) -> None:
        with contextlib.suppress(OSError):  # which opening the database tells
            Path(database).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        super().__init__(database, *args, **kwargs)
        # SQLite itself knows neither words nor the case of letters beyond ASCII.
        self.create_function(
            "has_words", 2, lambda text, wanted: has_words(text or "", wanted), deterministic=True
        )
        self.create_function("like", 3, _like, deterministic=True)


def _like(pattern: str, text: object, escape: str) -> bool | None:
    """`text LIKE pattern ESCAPE escape`; SQLite's own takes "Ä" and "ä" for different letters."""
    return None if text is None else bool(_like_pattern(pattern, escape).fullmatch(str(text).casefold()))


@lru_cache(maxsize=64)
def _like_pattern(pattern: str, escape: str) -> re.Pattern[str]:
    parts = re.split(f"({re.escape(escape)}.|%|_)", pattern.casefold(), flags=re.DOTALL)
    words = {"%": ".*", "_": "."}
    return re.compile(
        "".join(words.get(part) or re.escape(part.removeprefix(escape)) for part in parts), re.DOTALL
    )
