"""Checkpoints as they are published: tiny ones, with random weights."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.captioner.importing.hub import Hub
from tests.captioner.inference.checkpoints import SAVERS


@pytest.fixture(autouse=True)
def _own_data_dir(settings, tmp_path: Path) -> None:
    settings.DATA_DIR = tmp_path / "data"
    settings.CAPTION_MAX_BATCH, settings.CAPTION_THREADS = 2, 1


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[[str], Path]:
    """Saves a tiny captioner of a family."""

    def save(family: str, name: str = "") -> Path:
        folder = tmp_path / "published" / (name or f"tiny-{family}")
        SAVERS[family](folder)
        return folder

    return save


@pytest.fixture
def pickled(checkpoint: Callable[[str], Path]) -> Callable[..., Path]:
    """Saves a tiny captioner of a family with pickled weights, as before 2023."""

    def save(family: str, shards: int = 1) -> Path:
        folder = checkpoint(family)
        weights = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        if shards == 1:
            torch.save(weights, folder / "pytorch_model.bin")
            return folder
        places = {}
        for number in range(shards):
            shard = f"pytorch_model-{number + 1:05}-of-{shards:05}.bin"
            names = sorted(weights)[number::shards]
            torch.save({name: weights[name] for name in names}, folder / shard)
            places |= dict.fromkeys(names, shard)
        write_index(folder / "pytorch_model.bin.index.json", places)
        return folder

    return save


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that answers at `HF_ENDPOINT`, though this process has read that already."""
    hub = Hub()
    with hub.serving():
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.address)
        monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", hub.address)
        monkeypatch.setattr(
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
            hub.address + "/{repo_id}/resolve/{revision}/{filename}",
        )
        yield hub


def write_index(path: Path, places: dict[str, str]) -> None:
    path.write_text(json.dumps({"metadata": {}, "weight_map": places}))
