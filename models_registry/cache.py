"""Verified copies of versions on this machine's disk, bounded; a store that is down does not stop what is here."""

import contextlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from django.conf import settings

from models_registry import storage
from models_registry.exceptions import VersionCorrupt
from models_registry.manifest import Manifest, folder_verify

logger = logging.getLogger(__name__)

_DRAFT_PREFIX = ".fetch-"
# An older draft belongs to a process that was killed while it fetched.
_DRAFT_SECONDS = 6 * 3600


def version_read(manifest: Manifest) -> Path:
    """A local folder holding the verified files of a published version.

    A store in local files is read in place; anything else is copied once. The hashes are checked every time, for a
    disk can rot as well as a network can lie; a copy that rotted is fetched again.

    Raises `VersionCorrupt`, and `StoreUnavailable` when the store is needed and cannot be reached.
    """
    stored = storage.version_folder(manifest.version)
    if stored is not None:
        storage.version_check(manifest)
        folder_verify(stored, manifest)
        return stored
    folder = _root() / manifest.version
    if not _is_sound(folder, manifest):
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=_DRAFT_PREFIX))
        try:
            storage.version_download(manifest, draft)
            try:
                draft.rename(folder)
            except OSError:
                # Something is there: what another process has fetched meanwhile, or a damaged copy.
                if not _is_sound(folder, manifest):
                    _remove(folder)
                    draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    os.utime(folder)  # the least recently used go first
    return folder


def cache_clean(keep: Iterable[str] = ()) -> list[str]:
    """Remove the least recently used versions until the rest fits `MODEL_CACHE_MAX_MB`; returns their ids.

    Those of `keep` stay even if they alone are more than that.
    """
    if not _root().is_dir():
        return []
    folders = sorted(_root().iterdir(), key=_used_at, reverse=True)
    room, removed, kept = settings.MODEL_CACHE_MAX_MB * 1_000_000, [], set(keep)
    for folder in sorted(folders, key=lambda folder: folder.name not in kept):
        if folder.name.startswith(_DRAFT_PREFIX):
            if time.time() - _used_at(folder) > _DRAFT_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
            continue
        for parent, _, names in os.walk(folder):
            for name in names:
                with contextlib.suppress(FileNotFoundError):  # other processes remove folders too
                    room -= (Path(parent) / name).stat().st_size
        if room < 0 and folder.name not in kept:
            with contextlib.suppress(FileNotFoundError):
                _remove(folder)
                removed.append(folder.name)
    return removed


def _used_at(folder: Path) -> float:
    """Seconds since the epoch; now for what another process has just removed."""
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:
        return time.time()


def _root() -> Path:
    return Path(settings.DATA_DIR) / "model-cache"


def _is_sound(folder: Path, manifest: Manifest) -> bool:
    if not folder.is_dir():
        return False
    try:
        folder_verify(folder, manifest)
    except VersionCorrupt as error:
        logger.warning("The copy in %s is damaged and will be fetched again: %s", folder, error)
        return False
    return True


def _remove(folder: Path) -> None:
    """Out of the way first, so that nobody finds a part of it."""
    away = Path(tempfile.mkdtemp(dir=folder.parent, prefix=_DRAFT_PREFIX))
    try:
        folder.rename(away / folder.name)
    finally:
        shutil.rmtree(away, ignore_errors=True)
