"""System checks of the learning loop's settings."""

import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Tags, Warning, register


@register(Tags.files)
def check_photo_sets(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """Warnings and no errors, for only the trainer needs the photos, and other machines may not have them."""
    sets = {"TRAINING_ORIGINAL_PHOTOS": "training.W001", "TRAINING_REPLAY_PHOTOS": "training.W002"}
    return [
        Warning(
            f"{name}={path!r} is no photo set here, so training runs would fail.",
            hint="Give a tar of image and .json pairs, or a folder with captions.jsonl; or unset it.",
            id=check_id,
        )
        for name, check_id in sets.items()
        if (path := getattr(settings, name)) and not _is_photo_set(Path(path))
    ]


def _is_photo_set(path: Path) -> bool:
    """A cheap look: every command takes it."""
    try:
        return tarfile.is_tarfile(path) if path.is_file() else (path / "captions.jsonl").is_file()
    except OSError:
        return False
