"""Small versions to publish: each holds one file, whose content is its name."""

from pathlib import Path

from models_registry import services
from models_registry.manifest import Lineage
from models_registry.models import ModelVersion


def version_publish(root: Path, name: str, lineage: Lineage | None = None) -> ModelVersion:
    """A version of this name, out of a folder of this name below `root`."""
    folder = root / name
    folder.mkdir()
    (folder / "model.safetensors").write_text(name)
    return services.version_publish(folder, model_name=name, origin="a test", licence="MIT", lineage=lineage)


def versions_publish(root: Path, count: int, lineage: Lineage | None = None) -> list[ModelVersion]:
    """`v0`, `v1` and so on, oldest first; none is promoted."""
    return [version_publish(root, f"v{number}", lineage) for number in range(count)]
