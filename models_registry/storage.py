"""Where the files of versions are kept: the `weights` storage of the settings, S3 or a local folder.

Layout: `versions/<id>/<file>`, with `manifest.json` written last, so a version without one was never published.
"""

import shutil
import tempfile
from pathlib import Path

from django.core.files.base import ContentFile, File
from django.core.files.storage import Storage, storages

from models_registry.exceptions import VersionCorrupt
from models_registry.manifest import MANIFEST_NAME, Manifest, folder_verify


def version_write(folder: Path, manifest: Manifest) -> Manifest:
    """Copy the files of `folder` that `manifest` lists into the store, then the manifest; returns the stored one."""
    storage = _storage()
    for entry in manifest.files:
        with (folder / entry.name).open("rb") as file:
            storage.save(_key(manifest.version, entry.name), File(file))
    storage.save(_key(manifest.version, MANIFEST_NAME), ContentFile(manifest.to_json().encode()))
    return manifest


def version_delete(version: str) -> None:
    """Remove what the store holds of `version`; the manifest goes first, so that nobody reads a part of it."""
    storage = _storage()
    if not storage.exists(_key(version, MANIFEST_NAME)):
        return
    manifest = _manifest(version)
    storage.delete(_key(version, MANIFEST_NAME))
    for entry in manifest.files:
        storage.delete(_key(version, entry.name))


def version_exists(version: str) -> bool:
    """Whether `version` was fully published to the store."""
    return _storage().exists(_key(version, MANIFEST_NAME))


def version_read(version: str, cache: Path) -> Path:
    """A local folder holding the verified files of `version`.

    A store in local files is read in place; anything else is copied once to `cache/<version>`. The hashes are
    checked every time, for a disk can rot as well as a network can lie.

    Raises `VersionCorrupt`.
    """
    manifest = _manifest(version)
    folder = _local_folder(version) or cache / version
    if not folder.is_dir():
        _download(manifest, folder)
    folder_verify(folder, manifest)
    return folder


def _manifest(version: str) -> Manifest:
    try:
        with _storage().open(_key(version, MANIFEST_NAME)) as file:
            return Manifest.from_json(file.read())
    except FileNotFoundError:
        raise VersionCorrupt(
            f"Version {version} has no manifest in the store: it was never fully published."
        ) from None


def _download(manifest: Manifest, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".fetch-"))
    try:
        for entry in manifest.files:
            target = draft / entry.name
            target.parent.mkdir(parents=True, exist_ok=True)
            with _storage().open(_key(manifest.version, entry.name)) as source, target.open("wb") as copy:
                shutil.copyfileobj(source, copy, length=1 << 20)
        folder_verify(draft, manifest)
        _publish_folder(draft, folder)
    except FileNotFoundError as error:
        raise VersionCorrupt(f"Version {manifest.version} is incomplete in the store: {error}.") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _publish_folder(draft: Path, folder: Path) -> None:
    try:
        draft.rename(folder)
    except OSError:
        # Another process of this machine was faster; what it put there was verified the same way.
        if not folder.is_dir():
            raise


def _local_folder(version: str) -> Path | None:
    try:
        return Path(_storage().path(_key(version, "")))
    except NotImplementedError:
        return None


def _key(version: str, name: str) -> str:
    return f"versions/{version}/{name}"


def _storage() -> Storage:
    return storages["weights"]
