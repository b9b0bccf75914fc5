import pytest

from models_registry.exceptions import RegistryError
from models_registry.manifest import DataSnapshot, FileEntry, Lineage, Manifest

FILES = (FileEntry("model.safetensors", 7, "0" * 64),)
LINEAGE = Lineage(
    parent="tiny-1",
    base="tiny-0",
    data=DataSnapshot("data/feedback.jsonl", "1" * 64, {"train": 80, "holdout": 20}, "pepper"),
    code_revision="abc",
    environment={"torch": "2.13.0"},
    config={"learning_rate": 1e-4},
    seed=7,
    decoding={"num_beams": 1},
    preprocessing_signature="2" * 64,
    metrics={"holdout": {"cider": 82.0}},
    gate={"verdict": "promote"},
)


def manifest(lineage: Lineage) -> Manifest:
    return Manifest("tiny-2", "tiny", "a test", "Apache-2.0", FILES, "2026-01-01T00:00:00+00:00", lineage)


@pytest.mark.parametrize("lineage", [LINEAGE, Lineage()])
def test_a_manifest_survives_the_way_through_json(lineage: Lineage) -> None:
    assert Manifest.from_json(manifest(lineage).to_json()) == manifest(lineage)


def test_a_manifest_of_the_first_schema_is_still_read() -> None:
    first = {
        "schema": 1,
        "version": "tiny-0",
        "model_name": "tiny",
        "origin": "bundled",
        "licence": "Apache-2.0",
        "files": [{"name": "model.safetensors", "size": 7, "sha256": "0" * 64}],
    }
    read = Manifest.from_dict(first)
    assert (read.version, read.files, read.lineage) == ("tiny-0", FILES, Lineage())


@pytest.mark.parametrize("value", [object(), float("nan")])
def test_a_lineage_that_is_no_plain_json_is_refused(value: object) -> None:
    with pytest.raises(RegistryError, match="no plain JSON"):
        manifest(Lineage(config={"learning_rate": value})).to_json()
