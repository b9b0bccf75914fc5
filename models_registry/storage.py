"""Where the files of versions are kept: the `weights` storage of the settings, S3 or a local folder.

Layout: `versions/<id>/<file>`. `manifest.json` is written last and only if there is none, so a version without one was
never published, and of several publishers of one id one wins. Nothing here needs more than plain S3.
"""

import contextlib
import hashlib
import logging
import os
import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.core.files.base import ContentFile, File
from django.core.files.storage import Storage, storages

from models_registry.card import card_text
from models_registry.exceptions import StoreUnavailable, VersionCorrupt
from models_registry.files import file_write_atomically
from models_registry.manifest import CARD_NAME, MANIFEST_NAME, FileEntry, Manifest, folder_verify

logger = logging.getLogger(__name__)

_CHUNK = 1 << 20  # bytes
_VERIFIED_BYTES = 64 << 20  # of a remote file whose content is looked at before it may serve


def version_write(folder: Path, manifest: Manifest) -> Manifest:
    """Put the files of `folder` that `manifest` lists into the store, check them there, then put the manifest.

    What an earlier attempt has stored is kept. Returns the manifest that stands, which is another publisher's where
    that one was faster. Raises `StoreUnavailable`, and `VersionCorrupt` when the store holds something else.
    """
    with _errors_named():
        for entry in manifest.files:
            _file_ensure(folder, manifest.version, entry)
        standing: Manifest | None = manifest
        if not _create(_key(manifest.version, MANIFEST_NAME), manifest.to_json().encode()):
            standing = _manifest_read(manifest.version)
        if standing is None or not _is_same(standing, manifest):
            raise VersionCorrupt(f"The store holds something else under the name of {manifest.version}.")
        _storage().save(_key(manifest.version, CARD_NAME), ContentFile(card_text(standing).encode()))
    return standing


def version_mend(folder: Path, manifest: Manifest) -> list[str]:
    """Write again what the store has lost or damaged of a published version; the names of that.

    Raises `VersionCorrupt` when a file of `folder` is not what was published, `StoreUnavailable`.
    """
    with _errors_named():
        mended = [entry.name for entry in manifest.files if _file_ensure(folder, manifest.version, entry)]
        try:
            stored = _manifest_read(manifest.version)
        except VersionCorrupt:
            stored = None
        if stored is None or not _is_same(stored, manifest):
            _storage().save(_key(manifest.version, MANIFEST_NAME), ContentFile(manifest.to_json().encode()))
            mended.append(MANIFEST_NAME)
        if mended:
            _storage().save(_key(manifest.version, CARD_NAME), ContentFile(card_text(manifest).encode()))
    return mended


def file_read(version: str, name: str) -> bytes:
    """What the store holds of a version under this name, whatever the manifest says of it.

    Raises `VersionCorrupt` where there is nothing, `StoreUnavailable`.
    """
    with _errors_named():
        try:
            return b"".join(_chunks(_key(version, name)))
        except FileNotFoundError:
            raise VersionCorrupt(f"Version {version}: {name} is missing in the store.") from None


def version_check(manifest: Manifest) -> None:
    """That the store holds the manifest of this version. Raises `VersionCorrupt`, `StoreUnavailable`."""
    with _errors_named():
        stored = _manifest_read(manifest.version)
    if stored is None:
        raise VersionCorrupt(
            f"Version {manifest.version} has no manifest in the store: it was never fully published, or removed."
        )
    if not _is_same(stored, manifest):
        raise VersionCorrupt(f"The store holds other files under the name of {manifest.version}.")


def version_verify(manifest: Manifest) -> None:
    """That the store holds this version, file by file: by SHA-256, or by size where that meant a long download.

    Raises `VersionCorrupt`, `StoreUnavailable`.
    """
    version_check(manifest)
    folder = version_folder(manifest.version)
    with _errors_named():
        if folder is not None:
            folder_verify(folder, manifest)
            return
        for entry in manifest.files:
            try:
                sound = _storage().size(_key(manifest.version, entry.name)) == entry.size
            except FileNotFoundError:
                raise VersionCorrupt(
                    f"Version {manifest.version}: {entry.name} is missing in the store."
                ) from None
            if sound and entry.size <= _VERIFIED_BYTES:
                sound = _file_is_stored(manifest.version, entry)
            if not sound:
                raise VersionCorrupt(f"Version {manifest.version}: {entry.name} is not what was published.")


def version_download(manifest: Manifest, folder: Path) -> None:
    """Copy the files of a published version into `folder`, checking each against `manifest`.

    Raises `VersionCorrupt`, `StoreUnavailable`.
    """
    version_check(manifest)
    files_download(manifest, folder)


def files_download(manifest: Manifest, folder: Path) -> None:
    """As `version_download`, of files that `manifest` lists, whether or not the store's own manifest does."""
    with _errors_named():
        for entry in manifest.files:
            _file_download(manifest.version, entry, folder / entry.name)


def version_delete(version: str) -> None:
    """Remove what the store holds of `version`; the manifest goes first, so that nobody reads a part of it."""
    with _errors_named():
        storage = _storage()
        storage.delete(_key(version, MANIFEST_NAME))
        for name in stored_names(storage, _key(version, "")):
            storage.delete(name)


def version_folder(version: str) -> Path | None:
    """Where the store itself keeps the files of `version`, if that is a local folder."""
    try:
        return Path(_storage().path(_key(version, "")))
    except NotImplementedError:
        return None


# --- Files ----------------------------------------------------------------------------------------------------------


def _file_ensure(folder: Path, version: str, entry: FileEntry) -> bool:
    """Have the file in the store; whether it had to be written."""
    if _file_is_stored(version, entry):
        return False
    with (folder / entry.name).open("rb") as file:
        _storage().save(_key(version, entry.name), File(file))
    if not _file_is_stored(version, entry):
        raise VersionCorrupt(
            f"Version {version}: {entry.name} reads back from the store other than it was written. "
            "It may have changed meanwhile; publish again."
        )
    return True


def _file_is_stored(version: str, entry: FileEntry) -> bool:
    digest = hashlib.sha256()
    try:
        for chunk in _chunks(_key(version, entry.name)):
            digest.update(chunk)
    except FileNotFoundError:
        return False
    return digest.hexdigest() == entry.sha256


def _file_download(version: str, entry: FileEntry, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    try:
        with target.open("wb") as file:
            for chunk in _chunks(_key(version, entry.name)):
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
    except FileNotFoundError:
        raise VersionCorrupt(f"Version {version}: {entry.name} is missing in the store.") from None
    if digest.hexdigest() != entry.sha256:
        raise VersionCorrupt(f"Version {version}: {entry.name} is not what was published (SHA-256 differs).")


def _chunks(name: str) -> Iterator[bytes]:
    """The content of an object, a piece at a time. Raises `FileNotFoundError`."""
    bucket = _bucket()
    if bucket is None:
        with _storage().open(name) as file:
            yield from file.chunks(_CHUNK)
        return
    from botocore.exceptions import ClientError

    # Not through the storage's files: those hold all of an object in memory.
    try:
        body = bucket.Object(_object_key(name)).get()["Body"]
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
            raise FileNotFoundError(name) from error
        raise
    with contextlib.closing(body):
        yield from body.iter_chunks(_CHUNK)


def stored_names(storage: Storage, folder: str = "") -> Iterator[str]:
    """The names of all that lies below a folder of any of Django's storages; a local one that is not there is empty."""
    try:
        folders, files = storage.listdir(folder)
    except FileNotFoundError:
        return
    yield from (posixpath.join(folder, name) for name in files)
    for name in folders:
        yield from stored_names(storage, posixpath.join(folder, name))


# --- The manifest -----------------------------------------------------------------------------------------------------


def _is_same(one: Manifest, other: Manifest) -> bool:
    """Who published it, and when, makes no other version of it."""
    return (one.version, one.files) == (other.version, other.files)


def _manifest_read(version: str) -> Manifest | None:
    try:
        return Manifest.from_json(b"".join(_chunks(_key(version, MANIFEST_NAME))))
    except FileNotFoundError:
        return None


def _create(name: str, content: bytes) -> bool:
    """Write `name` unless it exists; whether it was written."""
    bucket = _bucket()
    if bucket is None:
        path = Path(_storage().path(name))
        try:
            with file_write_atomically(path, replace=False, several_writers=True) as draft:
                draft.write_bytes(content)
        except FileExistsError:
            return False
        return True
    from botocore.exceptions import ClientError

    try:
        bucket.put_object(
            Key=_object_key(name), Body=content, ContentType="application/json", IfNoneMatch="*"
        )
    except ClientError as error:
        # 409: another such write is under way; one of the two will have been first.
        if error.response["ResponseMetadata"]["HTTPStatusCode"] in {409, 412}:
            return False
        raise
    return True


# --- The store --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _errors_named() -> Iterator[None]:
    """Everything a store may raise becomes `StoreUnavailable`, which says what to look at."""
    try:
        yield
    except OSError as error:
        raise StoreUnavailable(f"The store of the weights failed: {error}") from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in {"boto3", "botocore", "s3transfer", "urllib3"}:
            raise
        raise StoreUnavailable(
            f"The store of the weights cannot be used: {error} Look at S3_ENDPOINT_URL, S3_BUCKET and the keys."
        ) from error


def _key(version: str, name: str) -> str:
    return f"versions/{version}/{name}"


def _object_key(name: str) -> str:
    return posixpath.join(_storage().location, name)  # type: ignore[attr-defined]


def _bucket() -> Any:
    """boto3's bucket behind the storage; None where it is a local folder."""
    return getattr(_storage(), "bucket", None)


def _storage() -> Storage:
    return storages["weights"]
