"""The embedded default's own secret key, made once and kept with the data."""

import os
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured
from django.core.management.utils import get_random_secret_key


def secret_key_ensure(path: Path) -> str:
    """Return the key stored at `path`, readable by its owner only; make one when there is none.

    Several processes may start at once: the key is written beside its place and linked into it, so that the
    first writer wins and nobody ever reads half a key. Raises `ImproperlyConfigured` where nothing can be kept.
    """
    try:
        return path.read_text(encoding="ascii") if path.exists() else _secret_key_make(path)
    except OSError as error:
        raise ImproperlyConfigured(
            f"Nothing can be written under {path.parent}: {error}. "
            "Point CAPTIONER_DATA_DIR at a folder that the user running Captioner may write to."
        ) from error


def _secret_key_make(path: Path) -> str:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    with os.fdopen(
        os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii"
    ) as file:
        file.write(get_random_secret_key())
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    return path.read_text(encoding="ascii")
