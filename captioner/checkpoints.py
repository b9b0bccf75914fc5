"""Bring a captioning checkpoint from the Hugging Face hub, or from a folder, into the registry."""

from pathlib import Path

from django.contrib.auth.models import User

from captioner import runtime
from models_registry import services as registry
from models_registry.exceptions import RegistryError
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


def checkpoint_import(
    source: str,
    *,
    name: str | None = None,
    revision: str | None = None,
    licence: str,
    promote: bool = False,
    by: User | None = None,
) -> tuple[ModelVersion, str]:
    """Publish the checkpoint at `source`, a folder or a hub id, once it has captioned a test image.

    Returns the version and that caption. Raises `IncompatibleModel`, or `RegistryError` when the source cannot be
    had or was published before.
    """
    folder = Path(source)
    origin = f"folder {folder.name}"
    if not folder.is_dir():
        folder, origin = _hub_download(source, revision), f"hub {source}@{revision or 'main'}"
    caption = runtime.checkpoint_try(folder)
    version = registry.version_publish(
        folder,
        model_name=name or source.rstrip("/").split("/")[-1],
        origin=origin,
        licence=licence,
        patterns=FILE_PATTERNS,
    )
    if promote:
        registry.version_promote(version, reason=f"Imported from {origin}", by=by)
    return version, caption


def _hub_download(hub_id: str, revision: str | None) -> Path:
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
