"""The embedded default's own secret key, made once and kept with the data."""

import contextlib
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured
from django.core.management.utils import get_random_secret_key

from models_registry.files import file_write_atomically


def secret_key_ensure(path: Path) -> str:
    """Return the key stored at `path`, readable by its owner only; make one when there is none.

    Several processes may start at once: the first to write a key wins. Raises `ImproperlyConfigured` where nothing can
    be kept.
    """
    try:
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft = file_write_atomically(path, replace=False, several_writers=True)
            with contextlib.suppress(FileExistsError), draft as file:
                file.write_text(get_random_secret_key(), encoding="ascii")
        return path.read_text(encoding="ascii")
    except OSError as error:
        raise ImproperlyConfigured(
            f"Nothing can be written under {path.parent}: {error}. "
            "Point CAPTIONER_DATA_DIR at a folder that the user running Captioner may write to."
        ) from error
