"""ZIP archives of photos from strangers: everything is checked in the directory, before anything is unpacked.

Nothing is ever written under a name from inside. No Django.
"""

import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any

from captioner.exceptions import InvalidArchive
from captioner.intake.limits import MAX_BYTES
from captioner.jobs.names import name_shown, names_read

_COMPRESSIONS = frozenset((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
# What zipfile raises for bytes it does not understand is undocumented in part.
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError),
    *(ValueError, ArithmeticError, LookupError, NotImplementedError, RuntimeError),
)
_ENCRYPTED = 0x1  # bit of the general purpose flags
# What computers put into archives unasked.
_JUNK_NAMES = frozenset(("thumbs.db", "desktop.ini"))
# Bytes of the directory per entry: fixed fields, a long name, and extra fields (APPNOTE 4.3.12).
_DIRECTORY_BYTES = 46 + 1024 + 256


@dataclass(frozen=True, slots=True)
class SentPhoto:
    """A photo of a job as it was sent: its sender's `name` for it, `size` in bytes, and how to get at its bytes.

    `read` may be called from any thread. Raises `InvalidArchive` where the archive is damaged.
    """

    name: str
    size: int
    read: Callable[[], bytes]


def archive_photos(
    file: IO[bytes], *, max_photos: int, max_bytes: int, code_page: str | None = None
) -> list[SentPhoto]:
    """The files in a ZIP archive, in its order, without folders and what operating systems leave behind.

    `code_page` is that of their names, as in `names_read`.

    Raises `InvalidArchive` when it is none, holds more than `max_photos` or, unpacked, more than `max_bytes`, is
    encrypted or compressed in an unusual way, or has files without a name or with one that leads out of a folder.
    """
    # The directory is read at once and each entry becomes an object, so its size is bounded first.
    bounded: Any = _BoundedReads(file, max(max_photos * _DIRECTORY_BYTES, zipfile.ZIP_MAX_COMMENT + 22))
    try:
        archive = zipfile.ZipFile(bounded)
    except UnicodeDecodeError as error:
        message = "The archive says of its names that they are UTF-8, and they are not. Make it again."
        raise InvalidArchive(message, reason="damaged") from error
    except _DAMAGE as error:
        raise InvalidArchive("This is no ZIP archive that can be read.", reason="not_an_archive") from error
    bounded.limit = MAX_BYTES + 1
    names = names_read(archive.infolist(), code_page)
    entries = [
        (name, entry)
        for name, entry in zip(names, archive.infolist(), strict=True)
        if not _is_folder(name, entry) and not _is_junk(name)
    ]
    if not entries:
        raise InvalidArchive("There is nothing in the archive.", reason="empty")
    if len(entries) > max_photos:
        message = (
            f"The archive holds {len(entries):,} files; at most {max_photos:,} photos are taken at a time."
        )
        raise InvalidArchive(message, reason="too_many")
    if sum(entry.file_size for _, entry in entries) > max_bytes:
        message = f"Unpacked, the archive has more than {max_bytes // 2**20} MB. Send it in parts."
        raise InvalidArchive(message, reason="too_large")
    for name, entry in entries:
        path = _path(name)
        if not path.name:
            raise InvalidArchive("A file in the archive has no name.", reason="unsafe_name")
        if path.is_absolute() or ".." in path.parts or path.parts[0][1:] == ":":
            message = f"The name {name_shown(name)!r} leads out of the archive's folder."
            raise InvalidArchive(message, reason="unsafe_name")
        if entry.flag_bits & _ENCRYPTED:
            message = "The archive is protected by a password. Send it without."
            raise InvalidArchive(message, reason="encrypted")
        if entry.compress_type not in _COMPRESSIONS:
            message = (
                "The archive is compressed in an unusual way. Make it again with the usual one, deflate."
            )
            raise InvalidArchive(message, reason="unsupported")
    return [
        SentPhoto(shown := name_shown(name), entry.file_size, _Entry(archive, entry, shown))
        for name, entry in entries
    ]


def _path(name: str) -> PurePosixPath:
    return PurePosixPath(name.replace("\\", "/").replace("\0", ""))


def _is_folder(name: str, entry: zipfile.ZipInfo) -> bool:
    """What ends like a folder, by Windows' rules too, and what has neither a name nor bytes."""
    return name.endswith(("/", "\\")) or not (entry.file_size or _path(name).name)


def _is_junk(name: str) -> bool:
    path = _path(name)
    return path.parts[:1] == ("__MACOSX",) or path.name.startswith(".") or path.name.lower() in _JUNK_NAMES


class _Entry:
    def __init__(self, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str) -> None:
        self._archive, self._entry, self._name = archive, entry, name

    def __call__(self) -> bytes:
        # A photo that is too large is refused by its size: one byte more than allowed says so.
        try:
            with self._archive.open(self._entry) as file:
                return file.read(MAX_BYTES + 1)
        except _DAMAGE as error:
            raise InvalidArchive(f"{self._name} in the archive is damaged.", reason="damaged") from error


class _BoundedReads:
    """A file of which nobody gets more than `limit` bytes at once."""

    def __init__(self, file: IO[bytes], limit: int) -> None:
        self._file, self.limit = file, limit

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(self.limit + 1 if size < 0 else min(size, self.limit + 1))
        if len(data) > self.limit:
            raise InvalidArchive("The archive's directory is far too long.", reason="too_many")
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
