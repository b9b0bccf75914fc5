"""An engine of tiny random checkpoints, which the registry's versions are."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.core.files.storage import storages
from PIL import Image

from captioner.serving.engine import Engine
from captioner.serving.process import serving
from models_registry import promotions, versions
from models_registry.models import ModelVersion
from tests.captioner.inference.checkpoints import SAVERS


@pytest.fixture
def fresh_serving(settings) -> Iterator[None]:
    """As in a process that has just started, except that versions are loaded within a step: no other thread sees the
    rows of a test.
    """
    settings.CAPTION_MAX_BATCH, settings.CAPTION_THREADS = 2, 1
    serving.__init__(run=lambda work: work())
    yield
    serving.drain(timeout=10)


@pytest.fixture
def publish(tmp_path: Path) -> Callable[[str], ModelVersion]:
    """Publishes a version of another content under each name."""

    def publish(name: str) -> ModelVersion:
        folder = tmp_path / name
        SAVERS["blip"](folder)
        (folder / "name.txt").write_text(name)
        return versions.version_publish(folder, model_name=name, origin="a test", licence="Apache-2.0")

    return publish


@pytest.fixture
def champion(publish: Callable[[str], ModelVersion]) -> ModelVersion:
    version = publish("tiny")
    promotions.version_promote(version, reason="a test")
    return version


def weights(version: ModelVersion) -> Path:
    return Path(storages["weights"].path(f"versions/{version.pk}/model.safetensors"))


def caption_text(engine: Engine) -> str:
    future = engine.submit(Image.new("RGB", (40, 30), "teal"), engine.default_parameters, math.inf)
    return future.result(timeout=60).candidates[0].caption


def break_weights(version: ModelVersion) -> None:
    weights(version).write_bytes(weights(version).read_bytes()[:-1] + b"!")
