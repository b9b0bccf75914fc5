"""Which version an alias points at, what served when, and how one gets back."""

from collections.abc import Callable
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.files.storage import storages
from django.utils import timezone

from models_registry import promotions, storage
from models_registry.exceptions import (
    AppendOnly,
    NotPromotable,
    RegistryError,
    StoreUnavailable,
    VersionCorrupt,
)
from models_registry.models import Alias, ModelVersion, Promotion, Rollout
from models_registry.versions import version_fetch, version_publish, versions_retain
from tests.models_registry.versions import versions_publish

pytestmark = pytest.mark.django_db

CHALLENGER = Alias.Name.CHALLENGER


@pytest.fixture
def versions(tmp_path: Path) -> list[ModelVersion]:
    """Four versions, of which none is promoted."""
    return versions_publish(tmp_path, 4)


def champions(*versions: ModelVersion) -> None:
    for version in versions:
        promotions.version_promote(version, reason="better")


def test_a_promotion_keeps_the_report_that_decided_it(versions: list[ModelVersion]) -> None:
    promotions.version_promote(versions[0], reason="gate", report={"verdict": "promote", "gain": 2.5})
    assert Promotion.objects.get().report == {"verdict": "promote", "gain": 2.5}


def test_rolling_back_returns_to_the_champion_before_and_is_logged(
    versions: list[ModelVersion], reviewer: User
) -> None:
    champions(*versions[:2])
    assert promotions.champion_rollback(reason="it hallucinates", by=reviewer) == versions[0]
    assert promotions.champion_get() == versions[0]
    entry = Promotion.objects.first()
    assert entry is not None
    assert (entry.action, entry.version, entry.promoted_by, entry.reason) == (
        Promotion.Action.ROLLBACK,
        versions[0],
        reviewer,
        "it hallucinates",
    )


def test_rolling_back_twice_goes_back_twice(versions: list[ModelVersion]) -> None:
    champions(*versions[:3])
    assert promotions.champion_rollback(reason="bad") == versions[1]
    assert promotions.champion_rollback(reason="still bad") == versions[0]
    with pytest.raises(NotPromotable, match="no earlier champion"):
        promotions.champion_rollback(reason="worse")


def test_what_was_rolled_back_is_not_returned_to(versions: list[ModelVersion]) -> None:
    champions(versions[0], versions[1])
    promotions.champion_rollback(reason="bad")
    champions(versions[2])
    assert promotions.champion_rollback(reason="bad too") == versions[0]


def test_a_rollback_from_what_serves_no_more_changes_nothing(versions: list[ModelVersion]) -> None:
    champions(*versions[:3])
    assert promotions.champion_rollback(reason="bad", expected=versions[2]) == versions[1]
    with pytest.raises(NotPromotable, match=f"not the champion any more; {versions[1]} is"):
        promotions.champion_rollback(reason="bad", expected=versions[2].pk)
    assert promotions.champion_get() == versions[1]


def damage_weights(version: ModelVersion) -> None:
    path = Path(storages["weights"].path(f"versions/{version.pk}/model.safetensors"))
    path.write_bytes(b"x")


def damage_row(version: ModelVersion) -> None:
    version.manifest = {"schema": 99}
    version.save()


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (damage_weights, r"model\.safetensors is not what was published"),
        (lambda version: storage.version_delete(version.pk), "no manifest in the store"),
        (damage_row, "schema 99 is unknown"),
    ],
)
@pytest.mark.parametrize("alias", Alias.Name)
def test_a_damaged_version_is_neither_promoted_nor_returned_to(
    versions: list[ModelVersion], damage: Callable[[ModelVersion], None], told: str, alias: Alias.Name
) -> None:
    champions(*versions[:2])
    for version in (versions[0], versions[2]):
        damage(version)
    with pytest.raises(NotPromotable, match=told):
        promotions.version_promote(versions[2], alias=alias, reason="better")
    with pytest.raises(NotPromotable, match=told):
        promotions.champion_rollback(reason="bad")
    assert promotions.aliases_get() == {"champion": versions[1]}
    assert Promotion.objects.count() == 2


def test_a_store_that_is_down_stops_promotions_and_no_rollback(
    versions: list[ModelVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    champions(*versions[:2])

    def unavailable(_: object) -> None:
        raise StoreUnavailable("It is down.")

    monkeypatch.setattr(storage, "version_verify", unavailable)
    with pytest.raises(StoreUnavailable):
        champions(versions[2])
    assert promotions.champion_rollback(reason="bad") == versions[0]


def test_there_is_nothing_to_roll_back_to_at_first(versions: list[ModelVersion]) -> None:
    champions(versions[0])
    with pytest.raises(NotPromotable):
        promotions.champion_rollback(reason="why not")
    assert promotions.champion_get() == versions[0]


def test_a_challenger_serves_beside_the_champion_until_it_is_taken_back(versions: list[ModelVersion]) -> None:
    champions(versions[0])
    promotions.version_promote(versions[1], alias=CHALLENGER, reason="try it")
    assert (promotions.champion_get(), promotions.challenger_get()) == (versions[0], versions[1])
    assert promotions.challenger_clear(reason="slow", report={"p95": 2.0}) == versions[1]
    assert promotions.challenger_get() is None
    entry = Promotion.objects.first()
    assert entry is not None
    assert (entry.action, entry.version, entry.report) == (
        Promotion.Action.CLEAR,
        versions[1],
        {"p95": 2.0},
    )


def test_taking_back_one_challenger_leaves_its_successor_alone(versions: list[ModelVersion]) -> None:
    promotions.version_promote(versions[1], alias=CHALLENGER, reason="try it")
    promotions.version_promote(versions[2], alias=CHALLENGER, reason="or this one")
    assert promotions.challenger_clear(reason="slow", only=versions[1]) is None
    assert promotions.challenger_get() == versions[2]


def test_a_challenger_that_becomes_champion_challenges_no_more(versions: list[ModelVersion]) -> None:
    champions(versions[0])
    promotions.version_promote(versions[1], alias=CHALLENGER, reason="try it")
    champions(versions[1])
    assert (promotions.champion_get(), promotions.challenger_get()) == (versions[1], None)


def test_the_champion_cannot_challenge_itself(versions: list[ModelVersion]) -> None:
    champions(versions[0])
    with pytest.raises(NotPromotable, match="cannot challenge itself"):
        promotions.version_promote(versions[0], alias=CHALLENGER, reason="try it")


@pytest.mark.parametrize(
    ("reason", "told"), [("", "Say why"), (" \t", "Say why"), ("a\0b", "no text"), ("a\udcff", "no text")]
)
def test_nothing_is_done_for_a_reason_that_cannot_be_logged(
    versions: list[ModelVersion], reason: str, told: str
) -> None:
    champions(*versions[:2])
    promotions.version_promote(versions[2], alias=CHALLENGER, reason="try it")
    for attempt in (
        lambda: promotions.version_promote(versions[3], reason=reason),
        lambda: promotions.champion_rollback(reason=reason),
        lambda: promotions.challenger_clear(reason=reason),
    ):
        with pytest.raises(RegistryError, match=told):
            attempt()
    assert promotions.aliases_get() == {"champion": versions[1], "challenger": versions[2]}
    assert Promotion.objects.count() == 3


def test_a_reason_is_kept_without_the_space_around_it(versions: list[ModelVersion]) -> None:
    promotions.version_promote(versions[0], reason=" schöner, 更好 🙂\n")
    assert Promotion.objects.get().reason == "schöner, 更好 🙂"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.5])
@pytest.mark.parametrize("name", ["canary_share", "max_error_rate", "max_latency_ratio", "max_rating_drop"])
def test_a_limit_that_means_nothing_is_refused_by_its_name(name: str, value: float) -> None:
    with pytest.raises(RegistryError, match=name):
        promotions.rollout_update(**{name: value})
    assert not Rollout.objects.exists()


def test_two_who_change_the_rollout_at_once_keep_what_both_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    promotions.rollout_update(canary_share=0.1)

    clean = Rollout.clean_fields

    def changed_meanwhile(rollout: Rollout) -> None:
        Rollout.objects.update(shadow_share=0.5)
        clean(rollout)

    monkeypatch.setattr(Rollout, "clean_fields", changed_meanwhile)
    promotions.rollout_update(canary_share=0.2)
    rollout = promotions.rollout_get()
    assert (rollout.canary_share, rollout.shadow_share) == (0.2, 0.5)


def test_the_log_only_grows(versions: list[ModelVersion]) -> None:
    champions(versions[0])
    entry = Promotion.objects.get()
    entry.reason = "it was never like that"
    for attempt in (
        entry.save,
        entry.delete,
    ):
        with pytest.raises(AppendOnly):
            attempt()
    assert Promotion.objects.get().reason == "better"


def test_the_log_outlives_the_account_of_who_wrote_it(versions: list[ModelVersion], reviewer: User) -> None:
    promotions.version_promote(versions[0], reason="better", by=reviewer)
    reviewer.delete()
    assert Promotion.objects.get().promoted_by is None


def test_an_alias_of_a_removed_version_leaves_a_way_out(versions: list[ModelVersion], tmp_path: Path) -> None:
    champions(*versions[:2])
    storage.version_delete(versions[1].pk)
    ModelVersion.objects.filter(pk=versions[1].pk).update(retired_at=timezone.now())
    with pytest.raises(VersionCorrupt):
        version_fetch(promotions.champion_get())
    again = version_publish(tmp_path / "v1", model_name="v1", origin="again", licence="MIT")
    assert version_fetch(promotions.champion_get()).is_dir()
    assert again == promotions.champion_get()
    assert promotions.champion_rollback(reason="bad") == versions[0]


def test_a_challenger_that_becomes_champion_by_a_rollback_challenges_no_more(
    versions: list[ModelVersion],
) -> None:
    champions(*versions[:2])
    promotions.version_promote(versions[0], alias=CHALLENGER, reason="once more")
    promotions.champion_rollback(reason="bad")
    assert (promotions.champion_get(), promotions.challenger_get()) == (versions[0], None)


def test_a_rollback_passes_over_versions_whose_files_are_gone(versions: list[ModelVersion]) -> None:
    champions(*versions)
    versions_retain(keep=0, dry_run=False)
    promotions.champion_rollback(reason="bad")
    with pytest.raises(NotPromotable):
        promotions.champion_rollback(reason="bad too")
