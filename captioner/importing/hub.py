"""Checkpoints from the Hugging Face hub, or whatever answers like it at `HF_ENDPOINT`; what was cut is resumed."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, cast

from django.conf import settings
from django.utils.text import slugify

from captioner.importing.files import names_taken
from models_registry.exceptions import RegistryError
from models_registry.files import file_sha256

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

Progress = Callable[[int, int], None]  # bytes that are here, of how many


class HubUnreachable(RegistryError):
    """The hub does not answer, or was cut off; it may another time."""


def is_hub_id(text: str) -> bool:
    return len(text) <= 200 and _HUB_ID.fullmatch(text) is not None


def hub_download(hub_id: str, revision: str | None, progress: Progress) -> tuple[Path, str]:
    """Fetch what an import takes of `hub_id`; returns the folder and the commit it is of.

    A file that was cut goes on where it ended, also in another process. Raises `RegistryError`, and `HubUnreachable`.
    """
    # All that is written lies in the data folder; the client reads this when it is imported.
    os.environ.setdefault("HF_HOME", str(settings.DATA_DIR / "hub"))
    # Imported here: the hub client is heavy, and most installations never use it.
    from httpx2 import HTTPError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
    from huggingface_hub.hf_api import RepoFile

    try:
        api = HfApi()
        commit = api.model_info(hub_id, revision=revision).sha or ""
        listed = {
            entry.path: entry
            for entry in api.list_repo_tree(hub_id, revision=commit)
            if isinstance(entry, RepoFile)
        }
        wanted = {name: listed[name] for name in names_taken(list(listed))}
        folder = settings.DATA_DIR / "imports" / f"{slugify(hub_id.replace('/', '--'))}-{commit[:12]}"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        total, done = sum(entry.size for entry in wanted.values()), 0
        for name, entry in sorted(wanted.items(), key=lambda item: item[1].size):
            sha256 = entry.lfs.sha256 if entry.lfs else None

            def tell(here: int, before: int = done) -> None:
                progress(before + here, total)

            _file_download(hub_id, commit, folder / name, size=entry.size, sha256=sha256, progress=tell)
            done += entry.size
    except HFValidationError as error:
        raise RegistryError(
            f"{hub_id} is neither a folder here nor a hub id of the form owner/name."
        ) from error
    except (HfHubHTTPError, HTTPError, OfflineModeIsEnabled, OSError) as error:
        told = " ".join(str(error).split())
        is_refusal = isinstance(error, HfHubHTTPError) and 400 <= error.response.status_code < 500
        raise (RegistryError if is_refusal else HubUnreachable)(
            f"{hub_id} is no folder here and could not be fetched from the hub: {told}"
        ) from error
    return folder, commit


def _file_download(
    hub_id: str,
    commit: str,
    path: Path,
    *,
    size: int,
    sha256: str | None,
    progress: Callable[[int], None],
) -> None:
    """Fetch one file of `size` bytes unless it is here. Raises `RegistryError` for other bytes than were announced."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils._headers import build_hf_headers

    class Told:
        """As much of a progress bar as the client uses: what it counts is told to us instead of to a terminal."""

        def __init__(self, *_: object, initial: int = 0, **__: object) -> None:
            self.here = initial

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            """Nothing to close."""

        def update(self, n: float | None = 1) -> None:
            self.here += int(n or 0)
            progress(self.here)

    if path.exists():
        progress(size)
        return
    draft = path.with_name(f"{path.name}.part")
    with draft.open("ab") as file:
        if (here := file.tell()) > size:
            file.truncate(here := 0)
        progress(here)
        if here < size:
            http_get(
                hf_hub_url(hub_id, path.name, revision=commit),
                file,
                resume_size=here,
                headers=build_hf_headers(),
                expected_size=size,
                tqdm_class=cast(Any, Told),
            )
    if draft.stat().st_size != size or (sha256 and file_sha256(draft) != sha256):
        draft.unlink()
        raise RegistryError(
            f"{path.name} of {hub_id} is not what the hub announced; it was fetched for nothing."
        )
    draft.rename(path)
