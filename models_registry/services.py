"""The registry's verbs: publish a version, promote it, roll back, find what serves, fetch its files, retire the old."""

import logging
import math
import shutil
import unicodedata
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.validators import slug_re
from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.text import slugify

from models_registry import cache, storage
from models_registry.card import card_text
from models_registry.exceptions import (
    NoChampion,
    NotPromotable,
    RegistryError,
    StoreUnavailable,
    VersionCorrupt,
    VersionExists,
    VersionUnknown,
)
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
from models_registry.models import Alias, ModelVersion, Promotion, Rollout

logger = logging.getLogger(__name__)

STARTER_DIR = Path(__file__).resolve().parent / "starter"
_STARTER_NAME = "captioner-starter"
_ID_LENGTH = 100  # of `ModelVersion.id`
_DIGEST_LENGTH = 10  # hexadecimal digits of the content's hash in it


# --- Versions -----------------------------------------------------------------------------------------------------


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
    _require_name(model_name)
    entries = folder_entries(folder, patterns)
    if not entries:
        raise RegistryError(f"{folder} holds no files to publish; looked for {', '.join(patterns)}.")
    manifest = Manifest(
        version=_version_id(model_name, entries),
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
            standing,
        )
    _version_claim(manifest.version)
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


def version_pin(version: ModelVersion) -> None:
    """Keep the files of `version` whatever retention says. Raises `NotPromotable` when they are gone already."""
    if not ModelVersion.objects.filter(pk=version.pk, retired_at=None).update(pinned=True):
        _require_present(version)


def version_unpin(version: ModelVersion) -> None:
    ModelVersion.objects.filter(pk=version.pk).update(pinned=False)


def versions_retain(
    *, keep: int = 5, only: Collection[str] | None = None, dry_run: bool = True
) -> list[ModelVersion]:
    """Remove the files of versions nobody needs any more; returns those versions, of which the rows and the log stay.

    Kept are what an alias points at, what a rollback would go to, the pinned, the newest `keep`, and the bases that
    any of these were trained from; with `only`, also every version whose id is not in it. With `dry_run` nothing is
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


def _version_claim(version_pk: str) -> None:
    """From now on retention removes no file of a retired version, which is about to be written again."""
    with transaction.atomic():
        if _versions_removable().select_for_update().filter(pk=version_pk).first():
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
            f"Version {manifest.version} was published by another process just now.",
            ModelVersion.objects.get(pk=manifest.version),
        ) from None


def _versions_needed(versions: list[ModelVersion], keep: int) -> set[str]:
    needed = set(Alias.objects.values_list("version_id", flat=True))
    needed |= {version.pk for version in versions if version.pinned}
    needed |= {version.pk for version in versions[:keep]}
    if previous := champion_previous():
        needed.add(previous.pk)
    bases = {version.pk: _base(version) for version in versions}
    return needed | {base for pk in needed if (base := bases.get(pk))}


def _base(version: ModelVersion) -> str | None:
    try:
        return version.facts.lineage.base
    except VersionCorrupt:
        return None


def _require_name(model_name: str) -> None:
    """Names become ids: lower-case ASCII letters and digits, `_` and `-`."""
    slug, room = slugify(model_name), _ID_LENGTH - len(f"-{'0' * _DIGEST_LENGTH}")
    if not slug.strip("-_"):
        raise RegistryError(f"The model name {model_name!r} makes no id; use letters a to z or digits in it.")
    if max(len(slug), len(model_name)) > room:
        raise RegistryError(
            f"The model name is too long with {len(model_name)} characters; up to {room} are allowed."
        )


def _version_id(model_name: str, entries: tuple[FileEntry, ...]) -> str:
    """An id that names the content: the same files always get the same one."""
    return f"{slugify(model_name)}-{content_sha256(entries)[:_DIGEST_LENGTH]}"


# --- Aliases ------------------------------------------------------------------------------------------------------


def version_promote(
    version: ModelVersion,
    *,
    alias: Alias.Name = Alias.Name.CHAMPION,
    reason: str,
    by: User | None = None,
    report: dict[str, Any] | None = None,
    expected: ModelVersion | None = None,
) -> None:
    """Point `alias` at `version` and log it, with the gate's `report`; what it already points at changes nothing.

    A challenger that becomes the champion is no challenger any more. Raises `NotPromotable` for a version whose files
    retention has removed or that are damaged, for a challenger that is the champion already, and when `expected` is
    given and is no longer the champion; `StoreUnavailable` when the store cannot be asked; `RegistryError` for a reason
    that says nothing.
    """
    reason = reason_require(reason)
    if Alias.objects.filter(name=alias, version=version).exists():
        return
    _require_present(version)
    _require_sound(version)
    with transaction.atomic():
        aliases = _aliases_lock()
        if aliases.get(alias) == version.pk:
            return
        _require_champion(expected)
        _require_present(version)
        if alias == Alias.Name.CHALLENGER and aliases.get(Alias.Name.CHAMPION) == version.pk:
            raise NotPromotable(f"Version {version} is the champion; it cannot challenge itself.")
        _alias_set(alias, version, Promotion.Action.PROMOTE, reason=reason, by=by, report=report)
        if alias == Alias.Name.CHAMPION and aliases.get(Alias.Name.CHALLENGER) == version.pk:
            _challenger_remove(version, reason="It became the champion.", by=by)


def reason_require(reason: str) -> str:
    """`reason` without space around it. Raises `RegistryError` where nothing is left, and for what no log can keep."""
    stripped = reason.strip()
    if not stripped:
        raise RegistryError("Say why: the reason is kept in the log.")
    if any(char == "\0" or unicodedata.category(char) == "Cs" for char in stripped):
        raise RegistryError("The reason holds characters that are no text.")
    return stripped


def champion_get() -> ModelVersion:
    """The version that serves. Raises `NoChampion`."""
    alias = Alias.objects.select_related("version").filter(name=Alias.Name.CHAMPION).first()
    if alias is None:
        raise NoChampion(
            "No model has been promoted yet. Run `manage.py setup` to register the bundled starter."
        )
    return alias.version


def champion_previous() -> ModelVersion | None:
    """What a rollback would go to: the champion before this one that can still serve."""
    history: list[Promotion] = []
    log = Promotion.objects.filter(alias=Alias.Name.CHAMPION).select_related("version")
    for entry in log.order_by("created_at", "id"):
        if entry.action == Promotion.Action.PROMOTE:
            history.append(entry)
            continue
        # A rollback undid everything since the version it went to.
        while history and history[-1].version_id != entry.version_id:
            history.pop()
    current = history[-1].version_id if history else None
    usable = [entry.version for entry in history if entry.version.retired_at is None]
    return next((version for version in reversed(usable) if version.pk != current), None)


def champion_rollback(
    *, reason: str, by: User | None = None, expected: ModelVersion | str | None = None
) -> ModelVersion:
    """Make the champion before this one serve again, and log it. Rolling back twice goes back twice.

    Raises `NotPromotable` when there is none, when its files are damaged, and when `expected` is given and is no longer
    the champion: somebody was faster. A store that is down does not stop it. `RegistryError` for a reason that says
    nothing.
    """
    reason = reason_require(reason)
    _require_champion(expected)
    previous = _champion_before()
    try:
        _require_sound(previous)
    except StoreUnavailable as error:
        logger.warning("Rolling back to %s unchecked: %s", previous, error)
    with transaction.atomic():
        _aliases_lock()
        _require_champion(expected)
        if _champion_before() != previous:
            raise NotPromotable("What serves was changed just now; look again before you roll back.")
        _alias_set(Alias.Name.CHAMPION, previous, Promotion.Action.ROLLBACK, reason=reason, by=by)
        if (challenger := challenger_get()) == previous:
            _challenger_remove(challenger, reason="It became the champion.", by=by)
        return previous


def challenger_get() -> ModelVersion | None:
    """The version that is tried beside the champion, if any."""
    alias = Alias.objects.select_related("version").filter(name=Alias.Name.CHALLENGER).first()
    return alias.version if alias else None


def challenger_clear(
    *,
    reason: str,
    by: User | None = None,
    report: dict[str, Any] | None = None,
    only: ModelVersion | None = None,
) -> ModelVersion | None:
    """Take the challenger back and log why; returns the version it was. With `only`, another one is left alone.

    Raises `RegistryError` for a reason that says nothing.
    """
    reason = reason_require(reason)
    with transaction.atomic():
        _aliases_lock()
        challenger = challenger_get()
        if challenger is None or only not in (None, challenger):
            return None
        _challenger_remove(challenger, reason=reason, by=by, report=report)
        return challenger


def aliases_get() -> dict[str, ModelVersion]:
    """What each alias points at, in one query."""
    return {alias.name: alias.version for alias in Alias.objects.select_related("version")}


def rollout_get() -> Rollout:
    """How challengers are tried."""
    return Rollout.objects.filter(pk=1).first() or Rollout(pk=1)


def rollout_update(**changes: float) -> Rollout:
    """Change how challengers are tried. Raises `RegistryError` naming what is out of range."""
    try:
        Rollout(**changes).clean_fields()
    except ValidationError as error:
        told = "; ".join(f"{name}: {' '.join(texts)}" for name, texts in error.message_dict.items())
        raise RegistryError(told) from error
    # The comparisons of validators let a NaN pass.
    if odd := [name for name, value in changes.items() if not math.isfinite(value)]:
        raise RegistryError(f"{', '.join(odd)}: give a finite number.")
    # What is changed only: somebody else may change the rest at the same time.
    return Rollout.objects.update_or_create(pk=1, defaults=changes)[0]


def challenger_since() -> datetime | None:
    """When the standing challenger became one."""
    return Alias.objects.filter(name=Alias.Name.CHALLENGER).values_list("updated_at", flat=True).first()


def _champion_before() -> ModelVersion:
    previous = champion_previous()
    if previous is None:
        raise NotPromotable("There is no earlier champion to roll back to.")
    return previous


def _require_champion(expected: ModelVersion | str | None) -> None:
    if expected is None:
        return
    champion = aliases_get().get(Alias.Name.CHAMPION)
    if champion is None or champion.pk != str(expected):
        raise NotPromotable(f"{expected} is not the champion any more; {champion or 'nothing'} is.")


def _require_present(version: ModelVersion) -> None:
    if ModelVersion.objects.get(pk=version.pk).retired_at:
        raise NotPromotable(
            f"The files of version {version} were removed by retention; publish it again to use it."
        )


def _require_sound(version: ModelVersion) -> None:
    """Outside of any lock: the store is asked, and takes its time."""
    try:
        storage.version_verify(version.facts)
    except VersionCorrupt as error:
        raise NotPromotable(
            f"Version {version} cannot serve. {error} Publish the same files again to mend it."
        ) from error


def _aliases_lock() -> dict[str, str]:
    """Alias -> version id; nobody else moves an existing alias before the transaction ends."""
    return {alias.name: alias.version_id for alias in Alias.objects.select_for_update().order_by("name")}


def _alias_set(alias: Alias.Name, version: ModelVersion, action: Promotion.Action, **entry: Any) -> None:
    Alias.objects.update_or_create(name=alias, defaults={"version": version})
    _log(alias, version, action, **entry)


def _challenger_remove(version: ModelVersion, **entry: Any) -> None:
    Alias.objects.filter(name=Alias.Name.CHALLENGER).delete()
    _log(Alias.Name.CHALLENGER, version, Promotion.Action.CLEAR, **entry)


def _log(
    alias: Alias.Name,
    version: ModelVersion,
    action: Promotion.Action,
    *,
    reason: str,
    by: User | None,
    report: dict[str, Any] | None = None,
) -> None:
    Promotion.objects.create(
        alias=alias, version=version, action=action, promoted_by=by, reason=reason, report=report
    )


# --- The bundled starter ------------------------------------------------------------------------------------------


def starter_register() -> ModelVersion:
    """Publish the bundled starter weights, and promote them unless something better than a starter serves already.

    A store that lost or damaged them, or was changed for another one, gets them again.
    """
    try:
        version = version_publish(
            STARTER_DIR,
            model_name=_STARTER_NAME,
            origin="bundled with the release",
            licence="non-commercial research and education; see the model card",
        )
    except VersionExists as error:
        version = error.version
    champion = Alias.objects.select_related("version").filter(name=Alias.Name.CHAMPION).first()
    if champion is None or champion.version.model_name == _STARTER_NAME:
        version_promote(version, reason="Bundled starter weights")
    return version
