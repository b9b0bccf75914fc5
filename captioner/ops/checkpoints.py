"""Bring a captioning checkpoint from the Hugging Face hub, or from a folder, into the registry."""

import os
from pathlib import Path
from typing import NamedTuple

from django.conf import settings
from django.contrib.auth.models import User

from captioner.serving.loaded_version import checkpoint_try
from models_registry import promotions, versions
from models_registry.exceptions import RegistryError, VersionExists
from models_registry.models import ModelVersion

# Everything a captioner is loaded from, and nothing that could be code or a pickle.
FILE_PATTERNS = (
    "*.safetensors",
    "*.json",
    "*.txt",
    "*.model",
    "README.md",
    "LICENSE*",
    "NOTICE*",
    "ATTRIBUTION*",
)


class Imported(NamedTuple):
    """What an import led to; `caption` is what the version says of a test image."""

    version: ModelVersion
    caption: str
    is_new: bool


def checkpoint_import(
    source: str,
    *,
    name: str | None = None,
    revision: str | None = None,
    licence: str,
    promote: bool = False,
    by: User | None = None,
) -> Imported:
    """Publish the checkpoint at `source`, a folder or a hub id, once it has captioned a test image.

    What was published before is not published again; it can still be promoted. Raises `IncompatibleModel`, or
    `RegistryError` when the source cannot be had.
    """
    folder = Path(source).resolve()
    name, origin = name or folder.name, f"folder {folder.name}"
    if not folder.is_dir():
        folder, origin = _hub_download(source, revision), f"hub {source}@{revision or 'main'}"
    caption, is_new = checkpoint_try(folder), True
    try:
        version = versions.version_publish(
            folder, model_name=name, origin=origin, licence=licence, patterns=FILE_PATTERNS
        )
    except VersionExists as error:
        version, is_new = versions.version_get(error.version), False
    if promote:
        promotions.version_promote(version, reason=f"Imported from {origin}", by=by)
    return Imported(version, caption, is_new)


def _hub_download(hub_id: str, revision: str | None) -> Path:
    # All that is written lies in the data folder; the client reads this when it is imported.
    os.environ.setdefault("HF_HOME", str(settings.DATA_DIR / "hub"))
    # Imported here: the hub client is heavy, and most installations never use it.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=list(FILE_PATTERNS)))
    except HFValidationError as error:
        raise RegistryError(
            f"{hub_id} is neither a folder here nor a hub id of the form owner/name."
        ) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise RegistryError(
            f"{hub_id} is no folder here and could not be fetched from the hub: {error}"
        ) from error
