"""The bridge from the registry to a serving engine, with a tiny random checkpoint."""

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from django.test import Client
from PIL import Image

from captioner.exceptions import IncompatibleModel, ModelUnavailable
from captioner.serving import process
from captioner.serving.loaded_version import LoadedVersion, checkpoint_try
from captioner.serving.process import serving
from models_registry import promotions, versions
from models_registry.exceptions import NoChampion, VersionCorrupt
from models_registry.models import ModelVersion
from tests.captioner.conftest import caption_text, weights
from tests.captioner.inference.checkpoints import SAVERS

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("fresh_serving")]


def test_the_champion_serves_once_loaded(champion: ModelVersion, client: Client) -> None:
    assert client.get("/readyz").status_code == 503
    engine = serving.load()
    assert caption_text(engine) == caption_text(engine)
    assert serving.engine() is engine is serving.load()
    ready = client.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["model"] == {"name": "tiny", "version": champion.pk}
    assert ready.json()["queue"]["photos"] > 0


def test_nothing_serves_before_it_is_loaded() -> None:
    with pytest.raises(ModelUnavailable, match="not been asked for"):
        serving.engine()


def test_without_a_champion_the_reason_is_readable(client: Client) -> None:
    with pytest.raises(NoChampion):
        serving.load()
    assert "setup of this service" in client.get("/readyz").json()["reason"]
    with pytest.raises(ModelUnavailable, match="the setup of this service"):
        serving.engine()


def test_corrupt_weights_are_never_loaded(champion: ModelVersion, client: Client) -> None:
    weights(champion).write_bytes(weights(champion).read_bytes()[:-1] + b"!")
    with pytest.raises(VersionCorrupt):
        serving.load()
    assert client.get("/readyz").status_code == 503
    assert "is not what was published" in client.get("/readyz").json()["reason"]


def test_a_drain_turns_readiness_red_at_once_and_answers_what_was_accepted(
    champion: ModelVersion, client: Client
) -> None:
    engine = serving.load()
    serving.drain_begin()
    assert client.get("/readyz").json()["state"] == "draining"
    assert client.get("/healthz").status_code == 200
    accepted = engine.submit(Image.new("RGB", (40, 30)), engine.default_parameters, math.inf)
    serving.drain(timeout=60)
    assert accepted.result(timeout=0).candidates
    with pytest.raises(ModelUnavailable):
        engine.submit(Image.new("RGB", (40, 30)), engine.default_parameters, math.inf)


def test_a_drain_in_the_middle_of_loading_leaves_no_thread_that_serves(
    champion: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, is_loading, is_draining = process.version_load, threading.Event(), threading.Event()

    def slow_load(version: ModelVersion) -> LoadedVersion:
        is_loading.set()
        assert is_draining.wait(60)
        return load(version)

    monkeypatch.setattr(process, "version_load", slow_load)
    monkeypatch.setattr(promotions, "champion_get", lambda: champion)  # no other thread sees this test's rows
    with ThreadPoolExecutor() as pool:
        loaded = pool.submit(serving.load)
        assert is_loading.wait(60)
        assert not serving.drain(timeout=60)  # it cannot be stopped
        is_draining.set()
        assert not loaded.result().batcher.stats().is_alive
    assert serving.status()["state"] == "draining"


def test_a_checkpoint_is_tried_before_it_is_published(tmp_path: Path) -> None:
    SAVERS["git"](tmp_path / "tiny")
    assert isinstance(checkpoint_try(tmp_path / "tiny"), str)
    with pytest.raises(IncompatibleModel):
        checkpoint_try(tmp_path)


def test_an_exported_version_is_loaded_by_transformers_alone(champion: ModelVersion, tmp_path: Path) -> None:
    from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

    folder = tmp_path / "exported"
    versions.version_export(champion, folder)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    pixels = AutoImageProcessor.from_pretrained(folder, backend="pil")(
        Image.new("RGB", (40, 30), "teal"), return_tensors="pt"
    )
    tokens = model.generate(**pixels, max_new_tokens=5)
    assert isinstance(AutoTokenizer.from_pretrained(folder).decode(tokens[0]), str)


def test_an_engine_whose_thread_has_ended_is_not_ready(champion: ModelVersion, client: Client) -> None:
    engine = serving.load()
    assert engine.batcher.drain(10)
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["state"]) == (503, "failed")
