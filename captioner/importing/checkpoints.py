"""Bring a captioning checkpoint from the Hugging Face hub, or from a folder, into the registry."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from django.conf import settings
from django.contrib.auth.models import User

from captioner.importing.files import checkpoint_stage
from captioner.importing.hub import hub_download
from captioner.serving.loaded_version import checkpoint_try
from models_registry import promotions, versions
from models_registry.exceptions import VersionExists
from models_registry.models import ModelVersion

Progress = Callable[
    [str, int, int], None
]  # what is being done, and how much of how much; 0 of 0 where none can say


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
    progress: Progress = lambda *_: None,
) -> Imported:
    """Publish the checkpoint at `source`, a folder or a hub id, once it has captioned a test image.

    What is tried is what is published: a copy, with pickled weights as safetensors, and nothing that could be code.
    What was published before is not published again; it can still be promoted. What was fetched is kept until then.
    Raises `IncompatibleModel`, or `RegistryError` when the source cannot be had.
    """
    folder = Path(source).resolve()
    name, origin, fetched = name or folder.name, f"folder {folder.name}", None
    if not folder.is_dir():
        folder, commit = hub_download(source, revision, lambda done, total: progress("fetching", done, total))
        origin, fetched = f"hub {source}@{commit}", folder
    drafts = settings.DATA_DIR / "imports"
    drafts.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".stage-", dir=drafts) as draft:
        stage = Path(draft) / name.rpartition("/")[2]  # errors name the folder
        progress("checking", 0, 0)
        checkpoint_stage(folder, stage)
        progress("trying", 0, 0)
        caption, is_new = checkpoint_try(stage), True
        progress("publishing", 0, 0)
        try:
            version = versions.version_publish(stage, model_name=name, origin=origin, licence=licence)
        except VersionExists as error:
            version, is_new = versions.version_get(error.version), False
    if promote:
        promotions.version_promote(version, reason=f"Imported from {origin}", by=by)
    if fetched is not None:
        shutil.rmtree(fetched, ignore_errors=True)
    return Imported(version, caption, is_new)
