"""SQLite as the embedded default uses it."""

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

from captioner.captions.text import has_words


class FolderMakingConnection(sqlite3.Connection):
    """A connection whose database's folder is made where it is missing, and which searches for words.

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
