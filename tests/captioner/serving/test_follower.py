"""A process keeps at what the registry says, whatever happens to versions, store and database."""

import math
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from django.db import InterfaceError
from django.test import Client
from PIL import Image

from captioner.exceptions import ModelUnavailable
from captioner.serving import follower as registry_follower
from captioner.serving import runtime
from captioner.serving.engine import LoadedVersion
from models_registry import promotions, versions
from models_registry.exceptions import StoreUnavailable, VersionCorrupt
from models_registry.models import Alias, ModelVersion, ServingProcess
from tests.captioner.conftest import break_weights, caption_text, weights
from tests.conftest import metric

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("fresh_runtime")]


def follow(monkeypatch: pytest.MonkeyPatch) -> None:
    """One look at the registry, at a time when whatever failed before may be tried again."""
    for trouble in runtime.state.troubles.values():
        monkeypatch.setattr(trouble, "retry_at", 0.0)
    registry_follower.registry_follow()


def test_a_new_champion_is_swapped_in_and_a_rollback_needs_no_loading(
    champion: ModelVersion, publish: Callable[[str], ModelVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = runtime.engine_load()
    better = publish("better")
    promotions.version_promote(better, reason="better")
    registry_follower.registry_follow()
    assert runtime.engine() is engine
    assert (engine.model_name, engine.model_version) == ("better", better.pk)
    assert caption_text(engine)
    monkeypatch.setattr(registry_follower, "version_load", lambda *_: pytest.fail("it is warm"))
    promotions.champion_rollback(reason="worse")
    registry_follower.registry_follow()
    assert engine.model_version == champion.pk
    assert runtime.engine_status()["previous"] == {"version": better.pk}


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
    engine = runtime.engine_load()
    better = publish("better")
    good = weights(better).read_bytes()
    promotions.version_promote(better, reason="better")
    damage(better)
    registry_follower.registry_follow()
    assert engine.model_version == champion.pk
    ready = client.get("/readyz")
    assert ready.status_code == 200
    assert told in ready.json()["alerts"][0]
    assert metric(client, 'captioner_versions_refused{alias="champion"}') == 1
    registry_follower._report()
    assert told in ServingProcess.objects.get().alerts[0]
    for away in weights(better).parent.glob("*.away"):
        away.rename(away.with_suffix(".json" if away.stem == "manifest" else ".safetensors"))
    weights(better).write_bytes(good)
    follow(monkeypatch)
    assert engine.model_version == better.pk
    assert client.get("/readyz").json()["alerts"] == []
    assert metric(client, 'captioner_versions_refused{alias="champion"}') == 0


def test_what_is_no_captioner_leaves_the_last_good_serving(
    champion: ModelVersion, tmp_path: Path, client: Client
) -> None:
    engine = runtime.engine_load()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "model.safetensors").write_bytes(b"no weights at all")
    version = versions.version_publish(tmp_path / "text", model_name="text", origin="a test", licence="MIT")
    promotions.version_promote(version, reason="why not")
    registry_follower.registry_follow()
    assert engine.model_version == champion.pk
    assert f"champion {version.pk} cannot be served" in client.get("/readyz").json()["alerts"][0]


def test_it_is_tried_again_later_and_later(
    champion: ModelVersion, publish: Callable[[str], ModelVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime.engine_load()
    better = publish("better")
    promotions.version_promote(better, reason="better")
    break_weights(better)
    registry_follower.registry_follow()
    attempts: list[ModelVersion] = []
    monkeypatch.setattr(registry_follower, "_load_beside", lambda _, version: attempts.append(version))
    registry_follower.registry_follow()
    assert attempts == []
    trouble = runtime.state.troubles[Alias.Name.CHAMPION]
    delays = []
    for _ in range(7):
        runtime.state.trouble_note(Alias.Name.CHAMPION, better.pk, VersionCorrupt("again"))
        delays.append(runtime.state.troubles[Alias.Name.CHAMPION].delay)
    assert trouble.delay < delays[0] < delays[1]
    assert delays[-1] == delays[-2] == runtime._RETRY_SECONDS[1]


def test_a_challenger_is_tried_beside_the_champion_and_ended(
    champion: ModelVersion, publish: Callable[[str], ModelVersion]
) -> None:
    engine = runtime.engine_load()
    challenger = publish("challenger")
    promotions.version_promote(challenger, alias=Alias.Name.CHALLENGER, reason="try it")
    promotions.rollout_update(canary_share=1.0)
    registry_follower.registry_follow()
    ticket = engine.photo_submit(Image.new("RGB", (40, 30)), "0" * 64, None, math.inf)
    assert ticket.result(60).model_version == challenger.pk
    assert runtime.engine_status()["challenger"]["canary_share"] == 1.0
    promotions.rollout_update(canary_share=0.0)
    registry_follower.registry_follow()
    assert engine.challenger.rollout.canary_share == 0.0
    promotions.version_promote(challenger, reason="it is better")
    registry_follower.registry_follow()
    assert (engine.model_version, engine.challenger) == (challenger.pk, None)
    assert caption_text(engine)


def test_a_process_that_is_told_to_stop_begins_no_loading(champion: ModelVersion) -> None:
    runtime.engine_drain(timeout=10)
    registry_follower.registry_follow()
    assert runtime.state.engine is None


def test_three_versions_at_most_are_in_memory(
    champion: ModelVersion, publish: Callable[[str], ModelVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = runtime.engine_load()
    promotions.version_promote(publish("second"), reason="better")
    promotions.version_promote(publish("third"), alias=Alias.Name.CHALLENGER, reason="try it")
    registry_follower.registry_follow()
    assert len(engine.versions()) == 3
    load, seen = registry_follower.version_load, []

    def counted(version: ModelVersion, folder: Path):
        seen.append(len(engine.versions()) + 1)
        return load(version, folder)

    monkeypatch.setattr(registry_follower, "version_load", counted)
    promotions.version_promote(publish("fourth"), reason="better")
    registry_follower.registry_follow()
    assert seen == [3]
    assert len(engine.versions()) == 3


def test_a_worker_that_does_not_follow_is_brought_to_the_champion_when_it_asks(
    champion: ModelVersion, publish: Callable[[str], ModelVersion]
) -> None:
    assert registry_follower.engine_refresh().model_version == champion.pk
    better = publish("better")
    promotions.version_promote(better, reason="better")
    assert registry_follower.engine_refresh().model_version == better.pk


def test_a_model_that_could_not_be_had_at_first_is_served_once_it_can(
    champion: ModelVersion, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = weights(champion).read_bytes()
    break_weights(champion)
    registry_follower.registry_follow()
    assert client.get("/readyz").status_code == 503
    assert "not what was published" in client.get("/readyz").json()["reason"]
    weights(champion).write_bytes(good)
    follow(monkeypatch)
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
    registry_follower.registry_follow()
    ready = client.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["model"]["version"] == champion.pk
    assert "not what was published" in ready.json()["alerts"][0]
    weights(better).write_bytes(good)
    follow(monkeypatch)
    assert client.get("/readyz").json()["model"]["version"] == better.pk
    assert client.get("/readyz").json()["alerts"] == []


def test_why_nothing_serves_names_no_server(
    champion: ModelVersion, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StoreUnavailable("The store failed: http://key:secret@minio.internal:9000")

    monkeypatch.setattr(runtime, "version_load", fail)
    registry_follower.registry_follow()
    ready = client.get("/readyz")
    assert ready.status_code == 503
    assert "store of the weights cannot be reached" in ready.json()["reason"]
    assert "minio" not in ready.content.decode()
    with pytest.raises(ModelUnavailable) as error:
        runtime.engine()
    assert "minio" not in str(error.value)


def test_a_look_that_fails_in_any_way_is_an_alert_and_the_next_is_taken(
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    began = time.time()
    outcomes: list[Exception | None] = [InterfaceError("connection already closed"), None]
    alerts: list[list[str]] = []

    def take(_: object) -> None:
        alerts.append(runtime.state.alerts)
        if len(alerts) > len(outcomes):
            runtime.stopping.set()
        elif error := outcomes[len(alerts) - 1]:
            raise error

    def fail() -> None:
        raise InterfaceError("it cannot even be closed")

    monkeypatch.setattr(runtime, "stopping", threading.Event())
    monkeypatch.setattr(registry_follower, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(registry_follower._Turn, "take", take)
    monkeypatch.setattr(registry_follower.connection, "close", fail)
    registry_follower._follow_forever()
    assert alerts == [[], [runtime._LOOK_FAILED], []]
    assert began <= metric(client, "captioner_registry_look_timestamp_seconds") <= time.time()


def test_a_registry_that_was_not_looked_at_for_long_is_an_alert(client: Client) -> None:
    runtime.state.looked_at = time.monotonic()
    assert client.get("/readyz").json()["alerts"] == []
    runtime.state.looked_at -= 2 * runtime._STALE_SECONDS
    ready = client.get("/readyz").json()
    assert ready["seconds_since_look"] > runtime._STALE_SECONDS
    assert ready["alerts"] == [runtime._STALE]


@pytest.mark.parametrize("alias", Alias.Name)
def test_what_is_wanted_no_more_once_it_is_loaded_is_dropped(
    champion: ModelVersion,
    publish: Callable[[str], ModelVersion],
    monkeypatch: pytest.MonkeyPatch,
    alias: Alias.Name,
) -> None:
    engine = runtime.engine_load()
    load = registry_follower.version_load

    def taken_back_meanwhile(version: ModelVersion, folder: Path) -> LoadedVersion:
        loaded = load(version, folder)
        if alias == Alias.Name.CHAMPION:
            promotions.champion_rollback(reason="worse")
        else:
            promotions.challenger_clear(reason="worse")
        return loaded

    monkeypatch.setattr(registry_follower, "version_load", taken_back_meanwhile)
    swapped: list[object] = []
    monkeypatch.setattr(engine, "champion_swap", swapped.append)
    monkeypatch.setattr(engine, "challenger_start", lambda *started: swapped.append(started))
    promotions.version_promote(publish("better"), alias=alias, reason="better")
    registry_follower.registry_follow()
    assert swapped == []
    assert [each.model_version for each in engine.versions()] == [champion.pk]


def test_a_rollback_to_a_warm_version_does_not_wait_for_one_that_is_loading(
    champion: ModelVersion, publish: Callable[[str], ModelVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = runtime.engine_load()
    promotions.version_promote(publish("better"), reason="better")
    registry_follower.registry_follow()
    promotions.version_promote(publish("best"), reason="best")
    begun, goes_on = threading.Event(), threading.Event()

    def slow(*_: object) -> None:
        begun.set()
        assert goes_on.wait(30)
        raise VersionCorrupt("after all that")

    monkeypatch.setattr(registry_follower, "_load_in_background", slow)
    turn = registry_follower._Turn()
    with pytest.MonkeyPatch.context() as patch, runtime.loading:  # which whoever loads holds
        patch.setattr(registry_follower, "_report", lambda: None)
        patch.setattr(threading, "excepthook", lambda _: None)
        turn.take()
        assert begun.wait(30)
        for _ in range(2):
            promotions.champion_rollback(reason="worse")
        turn.take()
        assert engine.model_version == champion.pk
        goes_on.set()
        turn._loader.join(30)


def test_what_is_in_memory_stays_in_the_cache_of_fetched_versions(
    champion: ModelVersion, publish: Callable[[str], ModelVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[set[str]] = []
    monkeypatch.setattr(registry_follower.cache, "cache_clean", lambda keep: kept.append(keep) or [])
    runtime.engine_load()
    better = publish("better")
    promotions.version_promote(better, reason="better")
    registry_follower.registry_follow()
    other = publish("other")
    promotions.version_promote(other, alias=Alias.Name.CHALLENGER, reason="try it")
    registry_follower.registry_follow()
    assert kept == [{champion.pk, better.pk}, {better.pk, champion.pk, other.pk}]


def test_one_version_is_loaded_at_a_time_and_the_next_after_it(
    champion: ModelVersion, publish: Callable[[str], ModelVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime.engine_load()
    better = publish("better")
    promotions.version_promote(better, reason="better")
    loads: list[ModelVersion] = []
    goes_on = threading.Event()

    def load(alias: Alias.Name, version: ModelVersion) -> None:
        loads.append(version)
        assert goes_on.wait(30)

    monkeypatch.setattr(registry_follower, "_load_in_background", load)
    monkeypatch.setattr(registry_follower, "_report", lambda: None)
    turn = registry_follower._Turn()
    turn.take()
    turn.take()
    goes_on.set()
    turn._loader.join(30)
    assert loads == [better]
    turn.take()  # as it is missing still
    turn._loader.join(30)
    assert loads == [better, better]


def test_what_cannot_be_fetched_costs_nothing_that_is_warm(
    champion: ModelVersion, publish: Callable[[str], ModelVersion]
) -> None:
    engine = runtime.engine_load()
    promotions.version_promote(publish("second"), reason="better")
    promotions.version_promote(publish("third"), alias=Alias.Name.CHALLENGER, reason="try it")
    registry_follower.registry_follow()
    broken = publish("fourth")
    promotions.version_promote(broken, reason="better")
    break_weights(broken)
    registry_follower.registry_follow()
    assert engine.previous is not None
    assert engine.previous.model_version == champion.pk
