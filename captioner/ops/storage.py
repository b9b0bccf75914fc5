"""Local file storage that never shows a torn file."""

import contextlib
import os
import tempfile
from pathlib import Path

from django.conf import settings
from django.core.files.base import File
from django.core.files.storage import FileSystemStorage


def data_dir_ensure() -> None:
    """Make the data folder and its folder for temporary files where they are missing; raises `OSError`."""
    settings.DATA_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)
    Path(settings.FILE_UPLOAD_TEMP_DIR).mkdir(mode=0o700, exist_ok=True)


def data_dir_close() -> None:
    """Let only its owner look into the data folder, unless it belongs to somebody else, who has decided that."""
    with contextlib.suppress(PermissionError):
        settings.DATA_DIR.chmod(0o700)


class AtomicFileSystemStorage(FileSystemStorage):
    """Django's local storage, publishing each file by temporary file, `fsync` and rename.

    A reader sees the old content, the new content or nothing, also after a kill or a power cut. Names are
    content-addressed here, so overwriting a name writes what is already there.
    """

    def _save(self, name: str, content: "File[bytes]") -> str:
        target = Path(self.path(name))
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, draft = tempfile.mkstemp(dir=target.parent, prefix=".", suffix=".part")
        try:
            with os.fdopen(descriptor, "wb") as file:
                for chunk in content.chunks():
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            Path(draft).replace(target)
        except BaseException:
            Path(draft).unlink()
            raise
        return name
