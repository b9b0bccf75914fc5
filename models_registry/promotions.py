"""The promotion log and what follows from it: which version is the champion, which one challenges it, and why.

Before a version may serve the store is asked for its files. The processes that serve notice by themselves
what was decided.
"""

import logging
import math
import unicodedata
from datetime import datetime
from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from models_registry import storage
from models_registry.exceptions import (
    NoChampion,
    NotPromotable,
    RegistryError,
    StoreUnavailable,
    VersionCorrupt,
)
from models_registry.models import Alias, ModelVersion, Promotion, Rollout

logger = logging.getLogger(__name__)


def version_promote(
    version: ModelVersion,
    *,
    alias: Alias.Name = Alias.Name.CHAMPION,
    reason: str,
    by: User | None = None,
    report: dict[str, Any] | None = None,
    expected: ModelVersion | None = None,
    cause: Promotion.Cause = Promotion.Cause.PERSON,
    training_run: int | None = None,
) -> None:
    """Point `alias` at `version` and log it, with the gate's `report`; what it already points at changes nothing.

    `training_run` is the number of the run that is the cause. A challenger that becomes the champion is no challenger
    any more. Raises `NotPromotable` for a version whose files retention has removed or that are damaged, for a
    challenger that is the champion already, and when `expected` is given and is no longer the champion;
    `StoreUnavailable` when the store cannot be asked; `RegistryError` for a reason that says nothing.
    """
    reason = reason_require(reason)
    if Alias.objects.filter(name=alias, version=version).exists():
        return
    version_require_present(version)
    _require_sound(version)
    with transaction.atomic():
        aliases = _aliases_lock()
        if aliases.get(alias) == version.pk:
            return
        _require_champion(expected)
        version_require_present(version)
        if alias == Alias.Name.CHALLENGER and aliases.get(Alias.Name.CHAMPION) == version.pk:
            raise NotPromotable(f"Version {version} is the champion; it cannot challenge itself.")
        entry = {"by": by, "cause": cause, "training_run": training_run}
        _alias_set(alias, version, Promotion.Action.PROMOTE, reason=reason, report=report, **entry)
        if alias == Alias.Name.CHAMPION and aliases.get(Alias.Name.CHALLENGER) == version.pk:
            _challenger_remove(version, reason="It became the champion.", **entry)


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
            "No model serves yet: the setup of this service, which registers the bundled one, has not been run."
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
    cause: Promotion.Cause = Promotion.Cause.PERSON,
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
        _challenger_remove(challenger, reason=reason, by=by, report=report, cause=cause)
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
    return Alias.objects.filter(name=Alias.Name.CHALLENGER).values_list("since", flat=True).first()


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


def version_require_present(version: ModelVersion) -> None:
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
    Alias.objects.update_or_create(name=alias, defaults={"version": version, "since": timezone.now()})
    _log(alias, version, action, **entry)


def _challenger_remove(version: ModelVersion, **entry: Any) -> None:
    Alias.objects.filter(name=Alias.Name.CHALLENGER).delete()
    _log(Alias.Name.CHALLENGER, version, Promotion.Action.CLEAR, **entry)


def _log(
    alias: Alias.Name,
    version: ModelVersion,
    action: Promotion.Action,
    *,
    by: User | None,
    **entry: Any,
) -> None:
    Promotion.objects.create(alias=alias, version=version, action=action, promoted_by=by, **entry)
