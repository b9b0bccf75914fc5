"""Which version an alias points at, what served when, and how one gets back."""

from collections.abc import Callable
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.files.storage import storages
from django.utils import timezone

from models_registry import services, storage
from models_registry.exceptions import (
    AppendOnly,
    NotPromotable,
    RegistryError,
    StoreUnavailable,
    VersionCorrupt,
    VersionUnknown,
)
from models_registry.manifest import Lineage
from models_registry.models import Alias, ModelVersion, Promotion, Rollout
from tests.models_registry.versions import versions_publish

pytestmark = pytest.mark.django_db

CHALLENGER = Alias.Name.CHALLENGER


@pytest.fixture
def versions(tmp_path: Path) -> list[ModelVersion]:
    """Four versions, of which none is promoted."""
    return versions_publish(tmp_path, 4)


def champions(*versions: ModelVersion) -> None:
    for version in versions:
        services.version_promote(version, reason="better")


def test_a_promotion_keeps_the_report_that_decided_it(versions: list[ModelVersion]) -> None:
    services.version_promote(versions[0], reason="gate", report={"verdict": "promote", "gain": 2.5})
    assert Promotion.objects.get().report == {"verdict": "promote", "gain": 2.5}


def test_rolling_back_returns_to_the_champion_before_and_is_logged(
    versions: list[ModelVersion], reviewer: User
) -> None:
    champions(*versions[:2])
    assert services.champion_rollback(reason="it hallucinates", by=reviewer) == versions[0]
    assert services.champion_get() == versions[0]
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
    assert services.champion_rollback(reason="bad") == versions[1]
    assert services.champion_rollback(reason="still bad") == versions[0]
    with pytest.raises(NotPromotable, match="no earlier champion"):
        services.champion_rollback(reason="worse")


def test_what_was_rolled_back_is_not_returned_to(versions: list[ModelVersion]) -> None:
    champions(versions[0], versions[1])
    services.champion_rollback(reason="bad")
    champions(versions[2])
    assert services.champion_rollback(reason="bad too") == versions[0]


def test_a_rollback_from_what_serves_no_more_changes_nothing(versions: list[ModelVersion]) -> None:
    champions(*versions[:3])
    assert services.champion_rollback(reason="bad", expected=versions[2]) == versions[1]
    with pytest.raises(NotPromotable, match=f"not the champion any more; {versions[1]} is"):
        services.champion_rollback(reason="bad", expected=versions[2].pk)
    assert services.champion_get() == versions[1]


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
        services.version_promote(versions[2], alias=alias, reason="better")
    with pytest.raises(NotPromotable, match=told):
        services.champion_rollback(reason="bad")
    assert services.aliases_get() == {"champion": versions[1]}
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
    assert services.champion_rollback(reason="bad") == versions[0]


def test_there_is_nothing_to_roll_back_to_at_first(versions: list[ModelVersion]) -> None:
    champions(versions[0])
    with pytest.raises(NotPromotable):
        services.champion_rollback(reason="why not")
    assert services.champion_get() == versions[0]


def test_a_challenger_serves_beside_the_champion_until_it_is_taken_back(versions: list[ModelVersion]) -> None:
    champions(versions[0])
    services.version_promote(versions[1], alias=CHALLENGER, reason="try it")
    assert (services.champion_get(), services.challenger_get()) == (versions[0], versions[1])
    assert services.challenger_clear(reason="slow", report={"p95": 2.0}) == versions[1]
    assert services.challenger_get() is None
    entry = Promotion.objects.first()
    assert entry is not None
    assert (entry.action, entry.version, entry.report) == (
        Promotion.Action.CLEAR,
        versions[1],
        {"p95": 2.0},
    )


def test_taking_back_one_challenger_leaves_its_successor_alone(versions: list[ModelVersion]) -> None:
    services.version_promote(versions[1], alias=CHALLENGER, reason="try it")
    services.version_promote(versions[2], alias=CHALLENGER, reason="or this one")
    assert services.challenger_clear(reason="slow", only=versions[1]) is None
    assert services.challenger_get() == versions[2]


def test_a_challenger_that_becomes_champion_challenges_no_more(versions: list[ModelVersion]) -> None:
    champions(versions[0])
    services.version_promote(versions[1], alias=CHALLENGER, reason="try it")
    champions(versions[1])
    assert (services.champion_get(), services.challenger_get()) == (versions[1], None)


def test_the_champion_cannot_challenge_itself(versions: list[ModelVersion]) -> None:
    champions(versions[0])
    with pytest.raises(NotPromotable, match="cannot challenge itself"):
        services.version_promote(versions[0], alias=CHALLENGER, reason="try it")


@pytest.mark.parametrize(
    ("reason", "told"), [("", "Say why"), (" \t", "Say why"), ("a\0b", "no text"), ("a\udcff", "no text")]
)
def test_nothing_is_done_for_a_reason_that_cannot_be_logged(
    versions: list[ModelVersion], reason: str, told: str
) -> None:
    champions(*versions[:2])
    services.version_promote(versions[2], alias=CHALLENGER, reason="try it")
    for attempt in (
        lambda: services.version_promote(versions[3], reason=reason),
        lambda: services.champion_rollback(reason=reason),
        lambda: services.challenger_clear(reason=reason),
    ):
        with pytest.raises(RegistryError, match=told):
            attempt()
    assert services.aliases_get() == {"champion": versions[1], "challenger": versions[2]}
    assert Promotion.objects.count() == 3


def test_a_reason_is_kept_without_the_space_around_it(versions: list[ModelVersion]) -> None:
    services.version_promote(versions[0], reason=" schöner, 更好 🙂\n")
    assert Promotion.objects.get().reason == "schöner, 更好 🙂"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.5])
@pytest.mark.parametrize("name", ["canary_share", "max_error_rate", "max_latency_ratio", "max_rating_drop"])
def test_a_limit_that_means_nothing_is_refused_by_its_name(name: str, value: float) -> None:
    with pytest.raises(RegistryError, match=name):
        services.rollout_update(**{name: value})
    assert not Rollout.objects.exists()


def test_two_who_change_the_rollout_at_once_keep_what_both_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    services.rollout_update(canary_share=0.1)

    clean = Rollout.clean_fields

    def changed_meanwhile(rollout: Rollout) -> None:
        Rollout.objects.update(shadow_share=0.5)
        clean(rollout)

    monkeypatch.setattr(Rollout, "clean_fields", changed_meanwhile)
    services.rollout_update(canary_share=0.2)
    rollout = services.rollout_get()
    assert (rollout.canary_share, rollout.shadow_share) == (0.2, 0.5)


def test_the_log_only_grows(versions: list[ModelVersion]) -> None:
    champions(versions[0])
    entry = Promotion.objects.get()
    entry.reason = "it was never like that"
    for attempt in (
        entry.save,
        entry.delete,
        Promotion.objects.all().delete,
        lambda: Promotion.objects.update(reason="rewritten"),
        lambda: Promotion.objects.bulk_update([entry], ["reason"]),
    ):
        with pytest.raises(AppendOnly):
            attempt()
    assert Promotion.objects.get().reason == "better"


def test_the_log_outlives_the_account_of_who_wrote_it(versions: list[ModelVersion], reviewer: User) -> None:
    services.version_promote(versions[0], reason="better", by=reviewer)
    reviewer.delete()
    assert Promotion.objects.get().promoted_by is None


def test_retention_says_first_what_it_would_remove(versions: list[ModelVersion]) -> None:
    champions(versions[3])
    assert set(services.versions_retain(keep=0)) == set(versions[:3])
    assert services.version_fetch(versions[0]).is_dir()


def test_retention_keeps_what_may_still_be_needed(versions: list[ModelVersion], tmp_path: Path) -> None:
    trained = tmp_path / "trained"
    trained.mkdir()
    (trained / "model.safetensors").write_bytes(b"trained")
    champion = services.version_publish(
        trained,
        model_name="trained",
        origin="a test",
        licence="Apache-2.0",
        lineage=Lineage(base=versions[0].pk),
    )
    champions(versions[1], champion)
    services.version_pin(versions[2])
    assert services.versions_retain(keep=0, dry_run=False) == [versions[3]]
    with pytest.raises(NotPromotable, match="removed by retention"):
        champions(versions[3])


def test_what_was_unpinned_is_removed_and_may_be_published_again(
    versions: list[ModelVersion], tmp_path: Path
) -> None:
    champions(versions[3])
    services.version_pin(versions[0])
    services.version_unpin(versions[0])
    assert set(services.versions_retain(keep=0, dry_run=False)) == set(versions[:3])
    again = services.version_publish(tmp_path / "v0", model_name="v0", origin="again", licence="Apache-2.0")
    assert again == versions[0]
    assert (again.facts.origin, again.retired_at, again.files_removed_at) == ("again", None, None)
    champions(again)
    assert services.version_fetch(again).is_dir()


def test_the_store_is_asked_once_to_remove_a_version(
    versions: list[ModelVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    champions(versions[3])
    asked: list[str] = []
    monkeypatch.setattr(storage, "version_delete", asked.append)
    for _ in range(2):
        services.versions_retain(keep=0, dry_run=False)
    assert sorted(asked) == [version.pk for version in versions[:3]]


def test_what_could_not_be_removed_is_removed_by_the_next_run(
    versions: list[ModelVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    champions(versions[3])

    def unavailable(_: str) -> None:
        raise StoreUnavailable("It is down.")

    with monkeypatch.context() as patch:
        patch.setattr(storage, "version_delete", unavailable)
        with pytest.raises(StoreUnavailable):
            services.versions_retain(keep=0, dry_run=False)
    stored = Path(storages["weights"].path(f"versions/{versions[0].pk}/model.safetensors"))
    assert stored.exists()
    assert services.versions_retain(keep=0, dry_run=False) == []
    assert not stored.exists()


def test_retention_removes_nothing_of_a_version_that_is_being_published_again(
    versions: list[ModelVersion], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    champions(versions[3])
    with monkeypatch.context() as patch:  # retired, and its removal is due
        patch.setattr(services, "_version_remove", lambda _: None)
        services.versions_retain(keep=0, dry_run=False)
    write = storage.version_write

    def written_while_retention_runs(*args):
        manifest = write(*args)
        services.versions_retain(keep=0, dry_run=False)
        return manifest

    monkeypatch.setattr(storage, "version_write", written_while_retention_runs)
    again = services.version_publish(tmp_path / "v0", model_name="v0", origin="again", licence="Apache-2.0")
    assert again.retired_at is None
    assert (services.version_fetch(again) / "model.safetensors").read_bytes() == b"v0"


def test_what_is_pinned_while_retention_decides_is_kept(
    versions: list[ModelVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    champions(versions[3])
    needed = services._versions_needed

    def pinned_then(*args):
        decided = needed(*args)
        services.version_pin(versions[0])
        return decided

    monkeypatch.setattr(services, "_versions_needed", pinned_then)
    assert set(services.versions_retain(keep=0, dry_run=False)) == set(versions[1:3])
    assert services.version_fetch(versions[0]).is_dir()


def test_what_is_gone_cannot_be_pinned(versions: list[ModelVersion]) -> None:
    champions(versions[3])
    services.versions_retain(keep=0, dry_run=False)
    with pytest.raises(NotPromotable, match="removed by retention"):
        services.version_pin(versions[0])
    assert not ModelVersion.objects.filter(pinned=True).exists()


@pytest.mark.parametrize("version", ["", "a b", "a\0b", "\udcff", "größer-1", "../../etc", "x" * 300, "v0\n"])
def test_an_id_that_is_none_is_just_unknown(versions: list[ModelVersion], version: str) -> None:
    with pytest.raises(VersionUnknown, match=f"There is no version .*{versions[3].pk}") as error:
        services.version_get(version)
    str(error.value).encode()


def test_an_alias_of_a_removed_version_leaves_a_way_out(versions: list[ModelVersion], tmp_path: Path) -> None:
    champions(*versions[:2])
    storage.version_delete(versions[1].pk)
    ModelVersion.objects.filter(pk=versions[1].pk).update(retired_at=timezone.now())
    with pytest.raises(VersionCorrupt):
        services.version_fetch(services.champion_get())
    again = services.version_publish(tmp_path / "v1", model_name="v1", origin="again", licence="MIT")
    assert services.version_fetch(services.champion_get()).is_dir()
    assert again == services.champion_get()
    assert services.champion_rollback(reason="bad") == versions[0]


def test_fewer_than_no_versions_cannot_be_kept(versions: list[ModelVersion]) -> None:
    with pytest.raises(RegistryError, match="give 0 or more"):
        services.versions_retain(keep=-2)


def test_a_challenger_that_becomes_champion_by_a_rollback_challenges_no_more(
    versions: list[ModelVersion],
) -> None:
    champions(*versions[:2])
    services.version_promote(versions[0], alias=CHALLENGER, reason="once more")
    services.champion_rollback(reason="bad")
    assert (services.champion_get(), services.challenger_get()) == (versions[0], None)


def test_a_rollback_passes_over_versions_whose_files_are_gone(versions: list[ModelVersion]) -> None:
    champions(*versions)
    services.versions_retain(keep=0, dry_run=False)
    services.champion_rollback(reason="bad")
    with pytest.raises(NotPromotable):
        services.champion_rollback(reason="bad too")
