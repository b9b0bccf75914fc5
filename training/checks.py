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
    warnings: list[CheckMessage] = []
    for name, check_id in sets.items():
        if not (text := getattr(settings, name)):
            continue
        path = Path(text)
        try:  # a cheap look, for every command takes it
            is_set = tarfile.is_tarfile(path) if path.is_file() else (path / "captions.jsonl").is_file()
        except OSError:
            is_set = False
        if not is_set:
            warnings.append(
                Warning(
                    f"{name}={text!r} is no photo set here, so training runs would fail.",
                    hint="Give a tar of image and .json pairs, or a folder with captions.jsonl; or unset it.",
                    id=check_id,
                )
            )
    return warnings
