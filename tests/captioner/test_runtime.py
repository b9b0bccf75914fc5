"""The bridge from the registry to a serving engine, with a tiny random checkpoint."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.core.files.storage import storages
from django.db import InterfaceError
from django.test import Client
from PIL import Image

from captioner import runtime
from captioner.exceptions import IncompatibleModel, ModelUnavailable
from models_registry import services as registry
from models_registry.exceptions import NoChampion, StoreUnavailable, VersionCorrupt
from models_registry.models import Alias, ModelVersion, ServingProcess
from tests.captioner.inference.checkpoints import SAVERS

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _fresh_runtime(monkeypatch: pytest.MonkeyPatch, settings) -> Iterator[None]:
    settings.CAPTION_MAX_BATCH, settings.CAPTION_PRECISION, settings.CAPTION_THREADS = 2, "fp32", 1
    monkeypatch.setattr(runtime, "_state", runtime._State())
    yield
    runtime.engine_drain(timeout=10)


@pytest.fixture
def publish(tmp_path: Path) -> Callable[[str], ModelVersion]:
    """Publishes a version of another content under each name."""

    def publish(name: str) -> ModelVersion:
        folder = tmp_path / name
        SAVERS["blip"](folder)
        (folder / "name.txt").write_text(name)
        return registry.version_publish(folder, model_name=name, origin="a test", licence="Apache-2.0")

    return publish


@pytest.fixture
def champion(publish: Callable[[str], ModelVersion]) -> ModelVersion:
    version = publish("tiny")
    registry.version_promote(version, reason="a test")
    return version


def weights(version: ModelVersion) -> Path:
    return Path(storages["weights"].path(f"versions/{version.pk}/model.safetensors"))


def caption(engine: runtime.Engine) -> str:
    future = engine.submit(Image.new("RGB", (40, 30), "teal"), engine.default_parameters, math.inf)
    return future.result(timeout=60).candidates[0].caption


def test_the_champion_serves_once_loaded(champion: ModelVersion, client: Client) -> None:
    assert client.get("/readyz").status_code == 503
    engine = runtime.engine_load()
    assert caption(engine) == caption(engine)
    assert runtime.engine() is engine is runtime.engine_load()
    ready = client.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["model"] == {"name": "tiny", "version": champion.pk}
    assert ready.json()["precision"]["chosen"] == "fp32"
    assert ready.json()["queue"]["photos"] > 0


def test_nothing_serves_before_it_is_loaded() -> None:
    with pytest.raises(ModelUnavailable, match="not been asked for"):
        runtime.engine()


def test_without_a_champion_the_reason_is_readable(client: Client) -> None:
    with pytest.raises(NoChampion):
        runtime.engine_load()
    assert "manage.py setup" in client.get("/readyz").json()["reason"]
    with pytest.raises(ModelUnavailable, match=r"manage\.py setup"):
        runtime.engine()


def test_corrupt_weights_are_never_loaded(champion: ModelVersion, client: Client) -> None:
    weights(champion).write_bytes(weights(champion).read_bytes()[:-1] + b"!")
    with pytest.raises(VersionCorrupt):
        runtime.engine_load()
    assert client.get("/readyz").status_code == 503
    assert "is not what was published" in client.get("/readyz").json()["reason"]


def test_a_drain_turns_readiness_red_at_once_and_answers_what_was_accepted(
    champion: ModelVersion, client: Client
) -> None:
    engine = runtime.engine_load()
    runtime.engine_drain_begin()
    assert client.get("/readyz").json()["state"] == "draining"
    assert client.get("/healthz").status_code == 200
    accepted = engine.submit(Image.new("RGB", (40, 30)), engine.default_parameters, math.inf)
    runtime.engine_drain(timeout=60)
    assert accepted.result(timeout=0).candidates
    with pytest.raises(ModelUnavailable):
        engine.submit(Image.new("RGB", (40, 30)), engine.default_parameters, math.inf)


def test_a_checkpoint_is_tried_before_it_is_published(tmp_path: Path) -> None:
    SAVERS["git"](tmp_path / "tiny")
    assert isinstance(runtime.checkpoint_try(tmp_path / "tiny"), str)
    with pytest.raises(IncompatibleModel):
        runtime.checkpoint_try(tmp_path)


# --- Following the registry ---


def follow(monkeypatch: pytest.MonkeyPatch) -> None:
    """One look at the registry, at a time when whatever failed before may be tried again."""
    for trouble in runtime._state.troubles.values():
        monkeypatch.setattr(trouble, "retry_at", 0.0)
    runtime.registry_follow()


def test_a_new_champion_is_swapped_in_and_a_rollback_needs_no_loading(
    champion: ModelVersion, publish: Callable[[str], ModelVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = runtime.engine_load()
    better = publish("better")
    registry.version_promote(better, reason="better")
    runtime.registry_follow()
    assert runtime.engine() is engine
    assert (engine.model_name, engine.model_version) == ("better", better.pk)
    assert caption(engine)
    monkeypatch.setattr(runtime, "version_load", lambda *_: pytest.fail("it is warm"))
    registry.champion_rollback(reason="worse")
    runtime.registry_follow()
    assert engine.model_version == champion.pk
    assert runtime.engine_status()["previous"] == {"version": better.pk}


def break_weights(version: ModelVersion) -> None:
    weights(version).write_bytes(weights(version).read_bytes()[:-1] + b"!")


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
    registry.version_promote(better, reason="better")
    damage(better)
    runtime.registry_follow()
    assert engine.model_version == champion.pk
    ready = client.get("/readyz")
    assert ready.status_code == 200
    assert told in ready.json()["alerts"][0]
    runtime._report()
    assert told in ServingProcess.objects.get().alerts[0]
    for away in weights(better).parent.glob("*.away"):
        away.rename(away.with_suffix(".json" if away.stem == "manifest" else ".safetensors"))
    weights(better).write_bytes(good)
    follow(monkeypatch)
    assert engine.model_version == better.pk
    assert client.get("/readyz").json()["alerts"] == []


def test_what_is_no_captioner_leaves_the_last_good_serving(
    champion: ModelVersion, tmp_path: Path, client: Client
) -> None:
    engine = runtime.engine_load()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "model.safetensors").write_bytes(b"no weights at all")
    version = registry.version_publish(tmp_path / "text", model_name="text", origin="a test", licence="MIT")
    registry.version_promote(version, reason="why not")
    runtime.registry_follow()
    assert engine.model_version == champion.pk
    assert f"champion {version.pk} cannot be served" in client.get("/readyz").json()["alerts"][0]


def test_it_is_tried_again_later_and_later(
    champion: ModelVersion, publish: Callable[[str], ModelVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime.engine_load()
    better = publish("better")
    registry.version_promote(better, reason="better")
    break_weights(better)
    runtime.registry_follow()
    attempts: list[ModelVersion] = []
    monkeypatch.setattr(runtime, "_load_beside", lambda _, version: attempts.append(version))
    runtime.registry_follow()
    assert attempts == []
    trouble = runtime._state.troubles[Alias.Name.CHAMPION]
    delays = []
    for _ in range(7):
        runtime._trouble_note(Alias.Name.CHAMPION, better.pk, VersionCorrupt("again"))
        delays.append(runtime._state.troubles[Alias.Name.CHAMPION].delay)
    assert trouble.delay < delays[0] < delays[1]
    assert delays[-1] == delays[-2] == runtime._RETRY_SECONDS[1]


def test_a_challenger_is_tried_beside_the_champion_and_ended(
    champion: ModelVersion, publish: Callable[[str], ModelVersion]
) -> None:
    engine = runtime.engine_load()
    challenger = publish("challenger")
    registry.version_promote(challenger, alias=Alias.Name.CHALLENGER, reason="try it")
    registry.rollout_update(canary_share=1.0)
    runtime.registry_follow()
    ticket = engine.photo_submit(Image.new("RGB", (40, 30)), "0" * 64, None, math.inf)
    assert ticket.result(60).model_version == challenger.pk
    assert runtime.engine_status()["challenger"]["canary_share"] == 1.0
    registry.rollout_update(canary_share=0.0)
    runtime.registry_follow()
    assert engine.challenger.rollout.canary_share == 0.0
    registry.version_promote(challenger, reason="it is better")
    runtime.registry_follow()
    assert (engine.model_version, engine.challenger) == (challenger.pk, None)
    assert caption(engine)


def test_three_versions_at_most_are_in_memory(
    champion: ModelVersion, publish: Callable[[str], ModelVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = runtime.engine_load()
    registry.version_promote(publish("second"), reason="better")
    registry.version_promote(publish("third"), alias=Alias.Name.CHALLENGER, reason="try it")
    runtime.registry_follow()
    assert len(engine.versions()) == 3
    load, seen = runtime.version_load, []

    def counted(version: ModelVersion, folder: Path):
        seen.append(len(engine.versions()) + 1)
        return load(version, folder)

    monkeypatch.setattr(runtime, "version_load", counted)
    registry.version_promote(publish("fourth"), reason="better")
    runtime.registry_follow()
    assert seen == [3]
    assert len(engine.versions()) == 3


def test_a_worker_that_does_not_follow_is_brought_to_the_champion_when_it_asks(
    champion: ModelVersion, publish: Callable[[str], ModelVersion]
) -> None:
    assert runtime.engine_refresh().model_version == champion.pk
    better = publish("better")
    registry.version_promote(better, reason="better")
    assert runtime.engine_refresh().model_version == better.pk


def test_a_model_that_could_not_be_had_at_first_is_served_once_it_can(
    champion: ModelVersion, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = weights(champion).read_bytes()
    break_weights(champion)
    runtime.registry_follow()
    assert client.get("/readyz").status_code == 503
    assert "not what was published" in client.get("/readyz").json()["reason"]
    weights(champion).write_bytes(good)
    follow(monkeypatch)
    assert client.get("/readyz").status_code == 200


def test_an_exported_version_is_loaded_by_transformers_alone(champion: ModelVersion, tmp_path: Path) -> None:
    from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

    folder = tmp_path / "exported"
    registry.version_export(champion, folder)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    pixels = AutoImageProcessor.from_pretrained(folder, backend="pil")(
        Image.new("RGB", (40, 30), "teal"), return_tensors="pt"
    )
    tokens = model.generate(**pixels, max_new_tokens=5)
    assert isinstance(AutoTokenizer.from_pretrained(folder).decode(tokens[0]), str)


def test_a_worker_that_starts_while_the_champion_is_damaged_serves_the_one_before(
    champion: ModelVersion,
    publish: Callable[[str], ModelVersion],
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    better = publish("better")
    good = weights(better).read_bytes()
    registry.version_promote(better, reason="better")
    break_weights(better)
    runtime.registry_follow()
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
    runtime.registry_follow()
    ready = client.get("/readyz")
    assert ready.status_code == 503
    assert "store of the weights cannot be reached" in ready.json()["reason"]
    assert "minio" not in ready.content.decode()
    with pytest.raises(ModelUnavailable) as error:
        runtime.engine()
    assert "minio" not in str(error.value)


def test_a_look_that_fails_in_any_way_is_an_alert_and_the_next_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outcomes: list[Exception | None] = [InterfaceError("connection already closed"), None]
    alerts: list[list[str]] = []

    def take(_: object) -> None:
        alerts.append(runtime._alerts())
        if len(alerts) > len(outcomes):
            runtime._stop.set()
        elif error := outcomes[len(alerts) - 1]:
            raise error

    def fail() -> None:
        raise InterfaceError("it cannot even be closed")

    monkeypatch.setattr(runtime, "_stop", threading.Event())
    monkeypatch.setattr(runtime, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(runtime._Turn, "take", take)
    monkeypatch.setattr(runtime.connection, "close", fail)
    runtime._follow_forever()
    assert alerts == [[], [runtime._LOOK_FAILED], []]


def test_a_registry_that_was_not_looked_at_for_long_is_an_alert(client: Client) -> None:
    runtime._state.looked_at = time.monotonic()
    assert client.get("/readyz").json()["alerts"] == []
    runtime._state.looked_at -= 2 * runtime._STALE_SECONDS
    ready = client.get("/readyz").json()
    assert ready["seconds_since_look"] > runtime._STALE_SECONDS
    assert ready["alerts"] == [runtime._STALE]


def test_an_engine_whose_thread_has_ended_is_not_ready(champion: ModelVersion, client: Client) -> None:
    engine = runtime.engine_load()
    assert engine.batcher.drain(10)
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["state"]) == (503, "failed")


@pytest.mark.parametrize("alias", Alias.Name)
def test_what_is_wanted_no_more_once_it_is_loaded_is_dropped(
    champion: ModelVersion,
    publish: Callable[[str], ModelVersion],
    monkeypatch: pytest.MonkeyPatch,
    alias: Alias.Name,
) -> None:
    engine = runtime.engine_load()
    load = runtime.version_load

    def taken_back_meanwhile(version: ModelVersion, folder: Path) -> runtime.LoadedVersion:
        loaded = load(version, folder)
        if alias == Alias.Name.CHAMPION:
            registry.champion_rollback(reason="worse")
        else:
            registry.challenger_clear(reason="worse")
        return loaded

    monkeypatch.setattr(runtime, "version_load", taken_back_meanwhile)
    swapped: list[object] = []
    monkeypatch.setattr(engine, "champion_swap", swapped.append)
    monkeypatch.setattr(engine, "challenger_start", lambda *started: swapped.append(started))
    registry.version_promote(publish("better"), alias=alias, reason="better")
    runtime.registry_follow()
    assert swapped == []
    assert [each.model_version for each in engine.versions()] == [champion.pk]


def test_a_rollback_to_a_warm_version_does_not_wait_for_one_that_is_loading(
    champion: ModelVersion, publish: Callable[[str], ModelVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = runtime.engine_load()
    registry.version_promote(publish("better"), reason="better")
    runtime.registry_follow()
    registry.version_promote(publish("best"), reason="best")
    begun, goes_on = threading.Event(), threading.Event()

    def slow(*_: object) -> None:
        begun.set()
        assert goes_on.wait(30)
        raise VersionCorrupt("after all that")

    monkeypatch.setattr(runtime, "_load_in_background", slow)
    turn = runtime._Turn()
    with pytest.MonkeyPatch.context() as patch, runtime._lock:  # which whoever loads holds
        patch.setattr(runtime, "_report", lambda: None)
        patch.setattr(threading, "excepthook", lambda _: None)
        turn.take()
        assert begun.wait(30)
        for _ in range(2):
            registry.champion_rollback(reason="worse")
        turn.take()
        assert engine.model_version == champion.pk
        goes_on.set()
        runtime._state.loader.join(30)


def test_what_cannot_be_fetched_costs_nothing_that_is_warm(
    champion: ModelVersion, publish: Callable[[str], ModelVersion]
) -> None:
    engine = runtime.engine_load()
    registry.version_promote(publish("second"), reason="better")
    registry.version_promote(publish("third"), alias=Alias.Name.CHALLENGER, reason="try it")
    runtime.registry_follow()
    broken = publish("fourth")
    registry.version_promote(broken, reason="better")
    break_weights(broken)
    runtime.registry_follow()
    assert engine.previous is not None
    assert engine.previous.model_version == champion.pk
