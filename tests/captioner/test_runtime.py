"""The bridge from the registry to a serving engine, with a tiny random checkpoint."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.files.storage import storages
from django.test import Client
from PIL import Image

from captioner import runtime
from captioner.exceptions import IncompatibleModel, ModelUnavailable
from models_registry import services as registry
from models_registry.exceptions import NoChampion, VersionCorrupt
from models_registry.models import ModelVersion
from tests.captioner.inference.checkpoints import SAVERS

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _fresh_runtime(monkeypatch: pytest.MonkeyPatch, settings) -> Iterator[None]:
    settings.CAPTION_MAX_BATCH, settings.CAPTION_PRECISION, settings.CAPTION_THREADS = 2, "fp32", 1
    monkeypatch.setattr(runtime, "_state", runtime._State())
    yield
    runtime.engine_drain(timeout=10)


@pytest.fixture
def champion(tmp_path: Path) -> ModelVersion:
    SAVERS["blip"](tmp_path / "tiny")
    version = registry.version_publish(
        tmp_path / "tiny", model_name="tiny", origin="a test", licence="Apache-2.0"
    )
    registry.version_promote(version, reason="a test")
    return version


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
    path = Path(storages["weights"].path(f"versions/{champion.pk}/model.safetensors"))
    path.write_bytes(path.read_bytes()[:-1] + b"!")
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
