"""Local file storage that never shows a torn file."""

import contextlib
from pathlib import Path

from django.conf import settings
from django.core.files.base import File
from django.core.files.storage import FileSystemStorage

from models_registry.files import file_write_atomically


def data_dir_ensure() -> None:
    """Make the data folder and those in it that are expected to be there, where they are missing; raises `OSError`.

    Servers do so when they start, and management commands with their system checks.
    """
    settings.DATA_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)
    Path(settings.FILE_UPLOAD_TEMP_DIR).mkdir(mode=0o700, exist_ok=True)
    for name, folder in settings.CELERY_BROKER_TRANSPORT_OPTIONS.items():
        if "folder" in name:  # of the file-based broker
            Path(str(folder)).mkdir(parents=True, exist_ok=True)


def data_dir_close() -> None:
    """Let only its owner look into the data folder, unless it belongs to somebody else, who has decided that."""
    with contextlib.suppress(PermissionError):
        settings.DATA_DIR.chmod(0o700)


class AtomicFileSystemStorage(FileSystemStorage):
    """Django's local storage, where a file appears whole or not at all, also after a kill or a power cut.

    Names are content-addressed here, so overwriting a name writes what is already there.
    """

    def _save(self, name: str, content: "File[bytes]") -> str:
        target = Path(self.path(name))
        with file_write_atomically(target, several_writers=True) as draft, draft.open("wb") as file:
            for chunk in content.chunks():
                file.write(chunk)
        return name
