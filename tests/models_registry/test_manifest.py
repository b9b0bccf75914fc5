import os
from pathlib import Path

import pytest

from models_registry.exceptions import RegistryError, VersionCorrupt
from models_registry.manifest import DataSnapshot, FileEntry, Lineage, Manifest, folder_entries

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


@pytest.mark.parametrize("value", [object(), float("nan"), "a\0b", "\udcff"])
def test_a_lineage_that_is_no_plain_json_is_refused(value: object) -> None:
    with pytest.raises(RegistryError, match="no plain JSON"):
        manifest(Lineage(config={"learning_rate": value})).to_json()


@pytest.mark.parametrize(
    "name",
    [
        "../../../escaped.txt",
        "data/../../escaped.txt",
        "/etc/passwd",
        "",
        "data//x.json",
        "data/",
        "./x.json",
        "data\\x.json",
        "a\nb.json",
        "a\x00b.json",
        "a\udcffb.json",
    ],
)
def test_a_file_name_that_leads_elsewhere_is_refused(name: str) -> None:
    fields = manifest(Lineage()).to_dict()
    fields["files"][0]["name"] = name
    with pytest.raises(VersionCorrupt, match="names a file"):
        Manifest.from_dict(fields)


@pytest.mark.parametrize("changes", [{"name": 7}, {"size": "7"}, {"size": -1}, {"sha256": None}])
def test_an_entry_of_the_wrong_type_is_refused(changes: dict) -> None:
    fields = manifest(Lineage()).to_dict()
    fields["files"][0] |= changes
    with pytest.raises(VersionCorrupt, match="cannot be read"):
        Manifest.from_dict(fields)


@pytest.mark.parametrize("name", [b"a\\b.json", b"a\nb.json", b"a\xffb.json"])
def test_a_file_name_that_not_every_store_can_keep_is_not_published(tmp_path: Path, name: bytes) -> None:
    (tmp_path / os.fsdecode(name)).write_text("{}")
    with pytest.raises(RegistryError, match="cannot be published"):
        folder_entries(tmp_path)
