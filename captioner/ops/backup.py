"""Copy the stored objects (photos and weights) to a folder and back. The database is dumped beside: see deploy/backup.

The folder holds `uploads/` (photos of batch jobs that are not captioned yet), `photos/`, `weights/` and
`objects.sha256`, which `sha256sum --check` reads. Objects never change under their name, so a copy that is there
already is not fetched again; what is gone from the store goes from the folder too, for a deleted photo must not live on
in backups.
"""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from django.core.files.base import File
from django.core.files.storage import Storage, storages

from captioner.exceptions import BackupCorrupt
from models_registry.files import file_sha256, file_write_atomically
from models_registry.storage import stored_names

# Of the backup: the storage it is a copy of. Uploads first, for workers go on captioning and deleting them.
_FOLDERS = {"uploads": "uploads", "photos": "default", "weights": "weights"}
_HASHES = "objects.sha256"


def objects_export(folder: Path) -> Iterator[str]:
    """Make `folder` a copy of the store; yields each object's name in it, once it is there."""
    known = _hashes_read(folder) if (folder / _HASHES).exists() else {}
    hashes: dict[str, str] = {}
    for top, alias in _FOLDERS.items():
        for name in stored_names(storages[alias]):
            if name.rpartition("/")[2].startswith("."):  # a local store's drafts
                continue
            copy = f"{top}/{name}"
            if copy not in known or not (folder / copy).is_file():
                try:
                    known[copy] = _fetch(storages[alias], name, folder / copy)
                except FileNotFoundError:  # deleted since it was listed
                    continue
            hashes[copy] = known[copy]
            yield copy
    with file_write_atomically(folder / _HASHES) as draft:
        listing = "".join(f"{sha256}  {name}\n" for name, sha256 in hashes.items())
        draft.write_text(listing, encoding="utf-8")
    for top in _FOLDERS:
        for path in list((folder / top).rglob("*")):
            if path.is_file() and path.relative_to(folder).as_posix() not in hashes:
                path.unlink()
                with contextlib.suppress(OSError):  # others are in it
                    path.parent.rmdir()


def objects_import(folder: Path) -> Iterator[str]:
    """Put every object of `folder` into the store; yields each one's name once it is there.

    Raises `BackupCorrupt` at an object that is missing or is not what was backed up.
    """
    hashes = _hashes_read(folder)
    # A version's manifest comes after its files: a version with a manifest is complete.
    for copy in sorted(hashes, key=lambda copy: (copy.endswith("manifest.json"), copy)):
        path = folder / copy
        if not path.is_file() or file_sha256(path) != hashes[copy]:
            raise BackupCorrupt(f"{path} is missing or damaged; take this file from another backup.")
        top, _, name = copy.partition("/")
        with path.open("rb") as file:
            storages[_FOLDERS[top]].save(name, File(file))
        yield copy


def _fetch(storage: Storage, name: str, target: Path) -> str:
    with storage.open(name) as source, file_write_atomically(target) as draft, draft.open("wb") as copy:
        shutil.copyfileobj(source, copy, length=1 << 20)
    return file_sha256(target)


def _hashes_read(folder: Path) -> dict[str, str]:
    try:
        lines = (folder / _HASHES).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise BackupCorrupt(f"{folder} holds no {_HASHES}, so it is no finished backup.") from None
    return {name: sha256 for sha256, _, name in (line.partition("  ") for line in lines)}
