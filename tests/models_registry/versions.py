"""Small versions to publish: each holds one file, whose content is its name."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from django.core.files.storage import storages

from models_registry import storage, versions
from models_registry.manifest import Lineage
from models_registry.models import ModelVersion


def version_publish(root: Path, name: str, lineage: Lineage | None = None) -> ModelVersion:
    """A version of this name, out of a folder of this name below `root`."""
    folder = root / name
    folder.mkdir()
    (folder / "model.safetensors").write_text(name)
    return versions.version_publish(folder, model_name=name, origin="a test", licence="MIT", lineage=lineage)


def versions_publish(root: Path, count: int, lineage: Lineage | None = None) -> list[ModelVersion]:
    """`v0`, `v1` and so on, oldest first; none is promoted."""
    return [version_publish(root, f"v{number}", lineage) for number in range(count)]


def manifest_race() -> None:
    """Eight threads write one manifest at the same moment; asserts that one of them wins, and that it reads so."""
    together = threading.Barrier(8)

    def attempt(number: int) -> bool:
        together.wait()
        return storage._create("versions/raced/manifest.json", f"{number}".encode())

    with ThreadPoolExecutor(8) as pool:
        wins = list(pool.map(attempt, range(8)))
    assert sum(wins) == 1
    assert storages["weights"].open("versions/raced/manifest.json").read().decode() == str(wins.index(True))
