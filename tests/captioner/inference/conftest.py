"""Checkpoints and predictors shared by the tests of a session; they are read, never changed."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from captioner.inference.drawings import drawn_images
from captioner.inference.predictor import Predictor
from tests.captioner.inference.checkpoints import SAVERS

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One tiny random checkpoint per family."""
    root = tmp_path_factory.mktemp("checkpoints")
    for family, save in SAVERS.items():
        save(root / family)
    return {family: root / family for family in SAVERS}


@pytest.fixture(scope="session")
def predictors(checkpoints: dict[str, Path]) -> dict[str, Predictor]:
    return {family: load(folder) for family, folder in checkpoints.items()}


@pytest.fixture(params=SAVERS)
def predictor(request: pytest.FixtureRequest, predictors: dict[str, Predictor]) -> Predictor:
    """One predictor of each family in turn."""
    return predictors[request.param]


@pytest.fixture
def copied(checkpoints: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """Copies a checkpoint, so that a test may break it."""

    def copy(family: str) -> Path:
        return Path(shutil.copytree(checkpoints[family], tmp_path / family))

    return copy


@pytest.fixture(scope="session")
def photos(predictors: dict[str, Predictor]) -> torch.Tensor:
    """Six drawn images, preprocessed for the encoder-decoder families: (6, 3, height, width)."""
    preprocess = predictors["vit_gpt2"].preprocess
    return torch.stack([preprocess(image) for image in drawn_images(6)])


def load(folder: Path) -> Predictor:
    return Predictor.load(folder, model_version=folder.name, num_threads=1)
