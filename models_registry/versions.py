"""What happens to a version of the weights: published, fetched, exported, pinned, and in the end retired."""

import dataclasses
import hashlib
import logging
import shutil
import tempfile
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path

from django.core.validators import slug_re
from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.text import slugify

from models_registry import cache, storage
from models_registry.card import card_text
from models_registry.exceptions import RegistryError, VersionExists, VersionUnknown
from models_registry.manifest import (
    CARD_NAME,
    MANIFEST_NAME,
    FileEntry,
    Lineage,
    Manifest,
    content_sha256,
    folder_entries,
    folder_verify,
)
from models_registry.models import Alias, ModelVersion
from models_registry.promotions import champion_previous, version_require_present

logger = logging.getLogger(__name__)

_ID_LENGTH = 100  # of `ModelVersion.id`
_DIGEST_LENGTH = 10  # hexadecimal digits of the content's hash in it


def version_publish(
    folder: Path,
    *,
    model_name: str,
    origin: str,
    licence: str,
    patterns: Sequence[str] = ("*",),
    lineage: Lineage | None = None,
) -> ModelVersion:
    """Publish the files of `folder` that match `patterns` as an immutable version, named after their content.

    Whatever belongs to the version, such as its data snapshot or its evaluation report, is just a file of the folder.
    A publication that was cut short is finished by doing it again, and what the store has lost or damaged of a version
    that was published before is mended from `folder`.

    Raises `VersionExists` if the same content was published before, `RegistryError` if no file matches, the name makes
    no id or the lineage is no plain JSON, `StoreUnavailable` if the store cannot be written.
    """
    # Names become ids: lower-case ASCII letters and digits, `_` and `-`.
    slug, room = slugify(model_name), _ID_LENGTH - len(f"-{'0' * _DIGEST_LENGTH}")
    if not slug.strip("-_"):
        raise RegistryError(f"The model name {model_name!r} makes no id; use letters a to z or digits in it.")
    if max(len(slug), len(model_name)) > room:
        raise RegistryError(
            f"The model name is too long with {len(model_name)} characters; up to {room} are allowed."
        )
    entries = folder_entries(folder, patterns)
    if not entries:
        raise RegistryError(f"{folder} holds no files to publish; looked for {', '.join(patterns)}.")
    manifest = Manifest(
        # It names the content: the same files always get the same one.
        version=f"{slug}-{content_sha256(entries)[:_DIGEST_LENGTH]}",
        model_name=model_name,
        origin=origin,
        licence=licence,
        files=entries,
        published_at=datetime.now(UTC).isoformat(timespec="seconds"),
        lineage=lineage or Lineage(),
    )
    if standing := ModelVersion.objects.filter(pk=manifest.version, retired_at=None).first():
        mended = _version_mend(standing, folder, manifest)
        raise VersionExists(
            f"Version {standing} was published before; versions are immutable."
            + (f" Mended in the store: {', '.join(mended)}." if mended else ""),
            standing.pk,
        )
    # From now on retention removes no file of a retired version, which is about to be written again.
    with transaction.atomic():
        if _versions_removable().select_for_update().filter(pk=manifest.version).first():
            ModelVersion.objects.filter(pk=manifest.version).update(files_removed_at=timezone.now())
    return _version_record(storage.version_write(folder, manifest))


def version_get(version: str) -> ModelVersion:
    """The version of this id. Raises `VersionUnknown` naming the newest ones."""
    # Databases choke on what no id holds: half characters, NUL.
    found = ModelVersion.objects.filter(pk=version).first() if slug_re.match(version) else None
    if found is None:
        newest = ", ".join(ModelVersion.objects.values_list("pk", flat=True)[:5]) or "none yet"
        shown = version if version.isprintable() else ascii(version)
        raise VersionUnknown(f"There is no version {shown}. The newest are: {newest}.")
    return found


def versions_numbered() -> dict[str, int]:
    """Id -> number of every version there ever was: 1 for the first, as people call them. Rows are never deleted."""
    ids = ModelVersion.objects.order_by("created_at", "pk").values_list("pk", flat=True)
    return {pk: number for number, pk in enumerate(ids, start=1)}


def version_fetch(version: ModelVersion) -> Path:
    """A local folder with the verified files of `version`; nothing is to be written there.

    Raises `VersionCorrupt`, and `StoreUnavailable` when they are not on this machine and the store cannot be reached.
    """
    return cache.version_read(version.facts)


def version_export(version: ModelVersion, folder: Path) -> None:
    """Copy the files of `version` and its card to `folder`, which transformers then loads by itself.

    Raises `RegistryError` when the folder is not empty, `VersionCorrupt`, `StoreUnavailable`.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RegistryError(f"{folder} is not empty; name a folder that is new or empty.")
    manifest, source = version.facts, version_fetch(version)
    for entry in manifest.files:
        target = folder / entry.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / entry.name, target)
    folder_verify(folder, manifest)
    (folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
    (folder / CARD_NAME).write_text(card_text(manifest), encoding="utf-8")


def version_file_rewrite(version: ModelVersion, name: str, rewrite: Callable[[bytes], bytes]) -> bool:
    """Put other bytes in the place of a file that holds what was to be deleted; the one exception to immutability.

    `rewrite` makes them of what the store holds, and leaves alone what it has made before: whoever was killed in
    between, with the file changed and manifest or row not, has the rest done by doing it again. The version keeps its
    id. Returns whether there was anything to do. Raises `VersionCorrupt`, `StoreUnavailable`.
    """
    manifest, stored = version.facts, storage.file_read(version.pk, name)
    content = rewrite(stored)
    replaced = FileEntry(name, len(content), hashlib.sha256(content).hexdigest())
    files = tuple(replaced if entry.name == name else entry for entry in manifest.files)
    if content == stored and files == manifest.files:
        return False
    facts = dataclasses.replace(manifest, files=files)
    # All other files are as they were published, or nothing is touched.
    others = dataclasses.replace(manifest, files=tuple(entry for entry in files if entry.name != name))
    with tempfile.TemporaryDirectory() as draft:
        storage.files_download(others, Path(draft))
        path = Path(draft) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        storage.version_mend(Path(draft), facts)
    ModelVersion.objects.filter(pk=version.pk).update(manifest=facts.to_dict())
    return True


def version_pin(version: ModelVersion) -> None:
    """Keep the files of `version` whatever retention says. Raises `NotPromotable` when they are gone already."""
    if not ModelVersion.objects.filter(pk=version.pk, retired_at=None).update(pinned=True):
        version_require_present(version)


def version_unpin(version: ModelVersion) -> None:
    ModelVersion.objects.filter(pk=version.pk).update(pinned=False)


def versions_retain(
    *, keep: int = 5, only: Collection[str] | None = None, dry_run: bool = True
) -> list[ModelVersion]:
    """Remove the files of versions nobody needs any more; returns those versions, of which the rows and the log stay.

    Kept are what an alias points at, what a rollback would go to, the pinned, the newest `keep`, of those first that
    learned from no deleted rows, and the bases that any of these were trained from; with `only`, also every version
    whose id is not in it. With `dry_run` nothing is
    removed. Raises `RegistryError` for a negative `keep`, and
    `StoreUnavailable`; the next run then removes what this one could not.
    """
    if keep < 0:
        raise RegistryError(f"{keep} versions cannot be kept; give 0 or more.")
    with transaction.atomic():
        list(Alias.objects.select_for_update())  # nothing is promoted while this decides
        candidates = list(ModelVersion.objects.filter(retired_at=None))
        needed = _versions_needed(candidates, keep)
        superfluous = [
            version
            for version in candidates
            if version.pk not in needed and (only is None or version.pk in only)
        ]
        if dry_run:
            return superfluous
        now = timezone.now()
        # Asked again, for it may have been pinned meanwhile.
        chosen = ModelVersion.objects.filter(
            pk__in=[version.pk for version in superfluous], retired_at=None, pinned=False
        )
        chosen.update(retired_at=now)
        retired = list(ModelVersion.objects.filter(retired_at=now))
    # Also what an earlier run retired and then could not remove.
    for version in _versions_removable():
        _version_remove(version.pk)
    return retired


def _versions_removable() -> QuerySet[ModelVersion]:
    return ModelVersion.objects.exclude(retired_at=None).filter(files_removed_at=None)


def _version_remove(version_pk: str) -> None:
    """Remove the files of a retired version. Whoever publishes it again waits, or was first and nothing is removed."""
    with transaction.atomic():
        if not _versions_removable().select_for_update().filter(pk=version_pk).first():
            return
        storage.version_delete(version_pk)
        ModelVersion.objects.filter(pk=version_pk).update(files_removed_at=timezone.now())


def _version_mend(standing: ModelVersion, folder: Path, manifest: Manifest) -> list[str]:
    """Bring what was published as `manifest` back to the store, and to a row that cannot be read; the names of that."""
    facts = standing.readable_facts
    if facts is None or facts.files != manifest.files:
        facts = manifest
        standing.manifest = manifest.to_dict()
        standing.save(update_fields=["manifest"])
    mended = storage.version_mend(folder, facts)
    if mended:
        logger.warning("Mended %s in the store: %s", standing, ", ".join(mended))
    return mended


def _version_record(manifest: Manifest) -> ModelVersion:
    """The row of a version whose files are stored; whoever makes it has published the version."""
    fields = {"model_name": manifest.model_name, "manifest": manifest.to_dict()}
    revived = ModelVersion.objects.exclude(retired_at=None).filter(pk=manifest.version)
    if revived.update(**fields, retired_at=None, files_removed_at=None):
        return ModelVersion.objects.get(pk=manifest.version)
    try:
        with transaction.atomic():
            return ModelVersion.objects.create(id=manifest.version, **fields)
    except IntegrityError:
        raise VersionExists(
            f"Version {manifest.version} was published by another process just now.", manifest.version
        ) from None


def _versions_needed(versions: list[ModelVersion], keep: int) -> set[str]:
    needed = set(Alias.objects.values_list("version_id", flat=True))
    needed |= {version.pk for version in versions if version.pinned}
    # What learned from rows that were deleted since is the first to go.
    needed |= {version.pk for version in sorted(versions, key=lambda each: each.deleted_rows > 0)[:keep]}
    if previous := champion_previous():
        needed.add(previous.pk)
    facts = {version.pk: version.readable_facts for version in versions}
    bases = {pk: manifest.lineage.base for pk, manifest in facts.items() if manifest}
    return needed | {base for pk in needed if (base := bases.get(pk))}
