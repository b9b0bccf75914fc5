"""A process keeps at what the registry says, whatever happens to versions, store and database."""

import math
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from django.db import InterfaceError
from django.test import Client
from PIL import Image

from captioner.exceptions import ModelUnavailable
from captioner.serving import follower, process
from captioner.serving.follower import Follower
from captioner.serving.loaded_version import LoadedVersion
from captioner.serving.process import Change, serving
from models_registry import promotions, versions
from models_registry.exceptions import StoreUnavailable, VersionCorrupt
from models_registry.models import Alias, ModelVersion, ServingProcess
from tests.captioner.conftest import break_weights, caption_text, weights
from tests.conftest import metric

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("fresh_serving")]


def follow(*, again: bool = False) -> list[Change]:
    """Steps until nothing is left to do, `again` at a time when whatever failed before may be tried again."""
    for trouble in serving.troubles.values():
        trouble.retry_at = 0.0 if again else trouble.retry_at
    changes: list[Change] = []
    while done := serving.step():
        changes += done
    return changes


def test_a_new_champion_is_swapped_in_and_a_rollback_needs_no_loading(
    champion: ModelVersion,
    publish: Callable[[str], ModelVersion],
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = serving.load()
    better = publish("better")
    promotions.version_promote(better, reason="better")
    assert serving.step() == [Change("load", better.pk)]
    assert engine.model_version == champion.pk, "what was loaded takes its place in the next step"
    assert serving.step() == [Change("serve", better.pk)]
    assert serving.engine() is engine
    assert (engine.model_name, engine.model_version) == ("better", better.pk)
    assert metric(client, f'captioner_model_info{{name="tiny",version="{champion.pk}"}}') == 0
    assert metric(client, f'captioner_model_info{{name="better",version="{better.pk}"}}') == 1
    assert caption_text(engine)
    monkeypatch.setattr(process, "version_load", lambda *_: pytest.fail("it is warm"))
    promotions.champion_rollback(reason="worse")
    assert serving.step() == [Change("serve", champion.pk)]
    assert engine.model_version == champion.pk
    assert serving.status()["previous"] == {"version": better.pk}


def remove_weights(version: ModelVersion) -> None:
    weights(version).rename(weights(version).with_suffix(".away"))


def remove_manifest(version: ModelVersion) -> None:
    manifest = weights(version).with_name("manifest.json")
    manifest.rename(manifest.with_suffix(".away"))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (break_weights, "not what was published"),
        (remove_weights, "is missing"),
        (remove_manifest, "no manifest"),
    ],
)
def test_what_is_damaged_leaves_the_last_good_serving_with_an_alert_until_it_is_mended(
    champion: ModelVersion,
    publish: Callable[[str], ModelVersion],
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[ModelVersion], None],
    told: str,
) -> None:
    engine = serving.load()
    better = publish("better")
    good = weights(better).read_bytes()
    promotions.version_promote(better, reason="better")
    damage(better)
    follow()
    assert engine.model_version == champion.pk
    ready = client.get("/readyz")
    assert ready.status_code == 200
    assert told in ready.json()["alerts"][0]
    assert metric(client, 'captioner_versions_refused{alias="champion"}') == 1
    Follower(serving).turn()
    assert told in ServingProcess.objects.get().alerts[0]
    for away in weights(better).parent.glob("*.away"):
        away.rename(away.with_suffix(".json" if away.stem == "manifest" else ".safetensors"))
    weights(better).write_bytes(good)
    follow(again=True)
    assert engine.model_version == better.pk
    assert client.get("/readyz").json()["alerts"] == []
    assert metric(client, 'captioner_versions_refused{alias="champion"}') == 0


def test_what_is_no_captioner_leaves_the_last_good_serving(
    champion: ModelVersion, tmp_path: Path, client: Client
) -> None:
    engine = serving.load()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "model.safetensors").write_bytes(b"no weights at all")
    version = versions.version_publish(tmp_path / "text", model_name="text", origin="a test", licence="MIT")
    promotions.version_promote(version, reason="why not")
    follow()
    assert engine.model_version == champion.pk
    assert f"champion {version.pk} cannot be served" in client.get("/readyz").json()["alerts"][0]


def test_it_is_tried_again_later_and_later(
    champion: ModelVersion, publish: Callable[[str], ModelVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    serving.load()
    better = publish("better")
    promotions.version_promote(better, reason="better")
    break_weights(better)
    follow()
    attempts: list[ModelVersion] = []
    monkeypatch.setattr(process, "version_load", lambda version, _: attempts.append(version))
    follow()
    assert attempts == []
    first = serving.troubles[Alias.Name.CHAMPION].delay
    delays = []
    for _ in range(7):
        serving._trouble_note(Alias.Name.CHAMPION, better, VersionCorrupt("again"))
        delays.append(serving.troubles[Alias.Name.CHAMPION].delay)
    assert first < delays[0] < delays[1]
    assert delays[-1] == delays[-2] == process.RETRY_SECONDS[1]


def test_a_challenger_is_tried_beside_the_champion_and_ended(
    champion: ModelVersion, publish: Callable[[str], ModelVersion]
) -> None:
    engine = serving.load()
    challenger = publish("challenger")
    promotions.version_promote(challenger, alias=Alias.Name.CHALLENGER, reason="try it")
    promotions.rollout_update(canary_share=1.0)
    follow()
    ticket = engine.photo_submit(Image.new("RGB", (40, 30)), "0" * 64, None, math.inf)
    assert ticket.result(60).model_version == challenger.pk
    assert serving.status()["challenger"]["canary_share"] == 1.0
    promotions.rollout_update(canary_share=0.0)
    follow()
    assert engine.challenger.rollout.canary_share == 0.0
    promotions.version_promote(challenger, reason="it is better")
    follow()
    assert (engine.model_version, engine.challenger) == (challenger.pk, None)
    assert caption_text(engine)


def test_a_process_that_is_told_to_stop_begins_no_loading(champion: ModelVersion) -> None:
    serving.drain(timeout=10)
    follow()
    assert serving._engine is None


def test_three_versions_at_most_are_in_memory(
    champion: ModelVersion, publish: Callable[[str], ModelVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = serving.load()
    promotions.version_promote(publish("second"), reason="better")
    promotions.version_promote(publish("third"), alias=Alias.Name.CHALLENGER, reason="try it")
    follow()
    assert len(engine.versions()) == 3
    load, seen = process.version_load, []

    def counted(version: ModelVersion, folder: Path):
        seen.append(len(engine.versions()) + 1)
        return load(version, folder)

    monkeypatch.setattr(process, "version_load", counted)
    promotions.version_promote(publish("fourth"), reason="better")
    follow()
    assert seen == [3]
    assert len(engine.versions()) == 3


def test_a_worker_that_does_not_follow_is_brought_to_the_champion_when_it_asks(
    champion: ModelVersion, publish: Callable[[str], ModelVersion]
) -> None:
    assert serving.refresh().model_version == champion.pk
    better = publish("better")
    promotions.version_promote(better, reason="better")
    assert serving.refresh().model_version == better.pk


def test_a_model_that_could_not_be_had_at_first_is_served_once_it_can(
    champion: ModelVersion, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = weights(champion).read_bytes()
    break_weights(champion)
    follow()
    assert client.get("/readyz").status_code == 503
    assert "not what was published" in client.get("/readyz").json()["reason"]
    weights(champion).write_bytes(good)
    follow(again=True)
    assert client.get("/readyz").status_code == 200


def test_a_worker_that_starts_while_the_champion_is_damaged_serves_the_one_before(
    champion: ModelVersion,
    publish: Callable[[str], ModelVersion],
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    better = publish("better")
    good = weights(better).read_bytes()
    promotions.version_promote(better, reason="better")
    break_weights(better)
    follow()
    ready = client.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["model"]["version"] == champion.pk
    assert "not what was published" in ready.json()["alerts"][0]
    weights(better).write_bytes(good)
    follow(again=True)
    assert client.get("/readyz").json()["model"]["version"] == better.pk
    assert client.get("/readyz").json()["alerts"] == []


def test_why_nothing_serves_names_no_server(
    champion: ModelVersion, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StoreUnavailable("The store failed: http://key:secret@minio.internal:9000")

    monkeypatch.setattr(process, "version_load", fail)
    follow()
    ready = client.get("/readyz")
    assert ready.status_code == 503
    assert "store of the weights cannot be reached" in ready.json()["reason"]
    assert "minio" not in ready.content.decode()
    with pytest.raises(ModelUnavailable) as error:
        serving.engine()
    assert "minio" not in str(error.value)


def test_a_look_that_fails_in_any_way_is_an_alert_and_the_next_is_taken(
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    began = time.time()
    outcomes: list[Exception | None] = [RuntimeError("nobody foresaw it"), None]
    alerts: list[list[str]] = []
    look = serving._look

    def take(aliases: list[Alias.Name]):
        alerts.append(serving.alerts)
        if len(alerts) > len(outcomes):
            serving.stopping.set()
        elif error := outcomes[len(alerts) - 1]:
            raise error
        return look(aliases)

    def fail() -> None:
        raise InterfaceError("it cannot even be closed")

    monkeypatch.setattr(follower, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(serving, "_look", take)
    monkeypatch.setattr(follower.connection, "close", fail)
    Follower(serving).run()
    assert alerts == [
        [],
        [process.LOOK_FAILED],
        [
            "No model serves yet: the setup of this service, which registers the bundled one, has not been run."
        ],
    ]
    assert began <= metric(client, "captioner_registry_look_timestamp_seconds") <= time.time()


def test_what_fails_again_and_again_beside_the_looks_is_one_alert_and_logged_once(
    champion: ModelVersion,
    publish: Callable[[str], ModelVersion],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    serving.load()
    promotions.version_promote(publish("better"), alias=Alias.Name.CHALLENGER, reason="try it")
    follow()
    alerts: list[list[str]] = []

    def fail() -> None:
        alerts.append(serving.alerts)
        if len(alerts) == 3:
            serving.stopping.set()
        raise RuntimeError("nobody foresaw it")

    monkeypatch.setattr(follower, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(follower.trials, "challenger_check", fail)
    monkeypatch.setattr(follower.connection, "close", lambda: None)
    Follower(serving).run()
    assert alerts == [[], [process.LOOK_FAILED], [process.LOOK_FAILED]]
    assert caplog.text.count("A look at the registry failed.") == 1


def test_a_registry_that_was_not_looked_at_for_long_is_an_alert(client: Client) -> None:
    serving.looked_at = time.monotonic()
    assert client.get("/readyz").json()["alerts"] == []
    serving.looked_at -= 2 * process.STALE_SECONDS
    ready = client.get("/readyz").json()
    assert ready["seconds_since_look"] > process.STALE_SECONDS
    assert ready["alerts"] == [process.STALE]


@pytest.mark.parametrize("alias", Alias.Name)
def test_what_is_wanted_no_more_once_it_is_loaded_is_dropped(
    champion: ModelVersion,
    publish: Callable[[str], ModelVersion],
    monkeypatch: pytest.MonkeyPatch,
    alias: Alias.Name,
) -> None:
    engine = serving.load()
    load = process.version_load

    def taken_back_meanwhile(version: ModelVersion, folder: Path) -> LoadedVersion:
        loaded = load(version, folder)
        if alias == Alias.Name.CHAMPION:
            promotions.champion_rollback(reason="worse")
        else:
            promotions.challenger_clear(reason="worse")
        return loaded

    monkeypatch.setattr(process, "version_load", taken_back_meanwhile)
    swapped: list[object] = []
    monkeypatch.setattr(engine, "champion_swap", swapped.append)
    monkeypatch.setattr(engine, "challenger_start", lambda *started: swapped.append(started))
    promotions.version_promote(publish("better"), alias=alias, reason="better")
    follow()
    assert swapped == []
    assert [each.model_version for each in engine.versions()] == [champion.pk]


def held(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """What is to be loaded from now on, to be called when that is to be done."""
    loads: list[Callable[[], None]] = []
    monkeypatch.setattr(serving, "_run", loads.append)
    return loads


def test_a_rollback_to_a_warm_version_does_not_wait_for_one_that_is_loading(
    champion: ModelVersion, publish: Callable[[str], ModelVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = serving.load()
    promotions.version_promote(publish("better"), reason="better")
    follow()
    promotions.version_promote(publish("best"), reason="best")
    loads = held(monkeypatch)
    assert [change.action for change in serving.step()] == ["load"]
    for _ in range(2):
        promotions.champion_rollback(reason="worse")
    assert serving.step() == [Change("serve", champion.pk)]
    assert engine.model_version == champion.pk
    [load] = loads
    load()  # for nothing
    assert serving.step() == []
    assert len(engine.versions()) == 2


def test_what_is_in_memory_stays_in_the_cache_of_fetched_versions(
    champion: ModelVersion, publish: Callable[[str], ModelVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[set[str]] = []
    monkeypatch.setattr(process.cache, "cache_clean", lambda keep: kept.append(keep) or [])
    serving.load()
    better = publish("better")
    promotions.version_promote(better, reason="better")
    follow()
    other = publish("other")
    promotions.version_promote(other, alias=Alias.Name.CHALLENGER, reason="try it")
    follow()
    assert kept == [{champion.pk, better.pk}, {better.pk, champion.pk, other.pk}]


def test_one_version_is_loaded_at_a_time_and_the_next_after_it(
    champion: ModelVersion, publish: Callable[[str], ModelVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    serving.load()
    better, other = publish("better"), publish("other")
    promotions.version_promote(better, reason="better")
    promotions.version_promote(other, alias=Alias.Name.CHALLENGER, reason="try it")
    loads = held(monkeypatch)
    assert serving.step() == [Change("load", better.pk)]
    assert serving.step() == []
    loads.pop()()
    assert serving.step() == [Change("serve", better.pk), Change("load", other.pk)]
    loads.pop()()
    assert serving.step() == [Change("try", other.pk)]


def test_what_cannot_be_fetched_costs_nothing_that_is_warm(
    champion: ModelVersion, publish: Callable[[str], ModelVersion]
) -> None:
    engine = serving.load()
    promotions.version_promote(publish("second"), reason="better")
    promotions.version_promote(publish("third"), alias=Alias.Name.CHALLENGER, reason="try it")
    follow()
    broken = publish("fourth")
    promotions.version_promote(broken, reason="better")
    break_weights(broken)
    follow()
    assert engine.previous is not None
    assert engine.previous.model_version == champion.pk
