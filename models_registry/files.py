"""Files that appear whole or not at all, and what is in them. No Django: whatever keeps a file may use this."""

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def file_write_atomically(
    path: Path, *, replace: bool = True, several_writers: bool = False
) -> Iterator[Path]:
    """Yields the path of a draft beside `path`; at the end of the block it is synced and takes the place of `path`.

    A reader finds the old content, the new content or nothing, also after a kill or a power cut; an error in the block
    leaves what was there. A draft is its owner's alone to read. One that a killed writer left is written over by the
    next, unless `several_writers` may be at it at once: then each has a draft of its own. Without `replace` the first
    writer wins, and the others get a `FileExistsError`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    name = secrets.token_hex(8) if several_writers else path.name
    draft = path.with_name(f".{name}.part")
    try:
        draft.touch(0o600)
        yield draft
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        if replace:
            draft.replace(path)
        else:
            os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def file_sha256(path: Path) -> str:
    """In hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
