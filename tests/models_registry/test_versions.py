import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from django.core.files.storage import storages

from captioner.inference import efficientnet_lite
from models_registry import bundled, promotions, storage, versions
from models_registry.exceptions import (
    NoChampion,
    NotPromotable,
    RegistryError,
    StoreUnavailable,
    VersionCorrupt,
    VersionExists,
    VersionUnknown,
)
from models_registry.manifest import Lineage, Manifest, folder_entries
from models_registry.models import ModelVersion, Promotion
from tests.models_registry.versions import versions_publish

pytestmark = pytest.mark.django_db


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "weights-to-publish"
    (folder / "sub").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights" * 1000)
    (folder / "sub" / "tokenizer.json").write_text("{}")
    (folder / ".DS_Store").write_text("not ours")
    return folder


def publish(folder: Path, name: str = "tiny", **options) -> ModelVersion:
    return versions.version_publish(folder, model_name=name, origin="a test", licence="Apache-2.0", **options)


def stored(version: ModelVersion, name: str) -> Path:
    return Path(storages["weights"].path(f"versions/{version.pk}/{name}"))


def test_a_published_version_can_be_fetched_with_the_same_bytes(folder: Path) -> None:
    fetched = versions.version_fetch(publish(folder))
    assert (fetched / "model.safetensors").read_bytes() == b"weights" * 1000
    assert (fetched / "sub" / "tokenizer.json").read_text() == "{}"


def test_the_manifest_lists_every_file_with_size_and_hash(folder: Path) -> None:
    version = publish(folder)
    manifest = json.loads(stored(version, "manifest.json").read_text())
    assert [entry["name"] for entry in manifest["files"]] == ["model.safetensors", "sub/tokenizer.json"]
    assert manifest["files"][0]["size"] == 7000
    version.refresh_from_db()
    assert manifest == version.manifest


def test_only_matching_files_are_published(folder: Path) -> None:
    fetched = versions.version_fetch(publish(folder, patterns=["*.safetensors"]))
    published = {path.name for path in fetched.iterdir()} - {"manifest.json", "MODEL_CARD.md"}
    assert published == {"model.safetensors"}


def test_the_id_names_the_content(folder: Path) -> None:
    first = publish(folder)
    (folder / "model.safetensors").write_bytes(b"other weights")
    second = publish(folder)
    assert first.pk.startswith("tiny-")
    assert first.pk != second.pk


def test_a_version_is_immutable(folder: Path) -> None:
    publish(folder)
    with pytest.raises(VersionExists, match="was published before"):
        publish(folder)


def test_of_two_publications_of_one_version_the_first_manifest_stands(folder: Path) -> None:
    first = Manifest("tiny-1", "tiny", "a test", "MIT", folder_entries(folder), published_at="2026-01-01")
    assert storage.version_write(folder, first) == first
    assert storage.version_write(folder, replace(first, published_at="2026-01-02")) == first
    assert "2026-01-01" in storages["weights"].open("versions/tiny-1/manifest.json").read().decode()


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="holds no files"):
        publish(tmp_path)


def test_one_flipped_byte_is_refused(folder: Path) -> None:
    version = publish(folder)
    path = stored(version, "model.safetensors")
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(content)
    with pytest.raises(VersionCorrupt, match=r"model\.safetensors is not what was published"):
        versions.version_fetch(version)


def test_a_missing_file_is_refused(folder: Path) -> None:
    version = publish(folder)
    stored(version, "sub/tokenizer.json").unlink()
    with pytest.raises(VersionCorrupt, match=r"tokenizer\.json is missing"):
        versions.version_fetch(version)


def test_a_version_without_a_manifest_was_never_published(folder: Path) -> None:
    version = publish(folder)
    stored(version, "manifest.json").unlink()
    with pytest.raises(VersionCorrupt, match="never fully published"):
        versions.version_fetch(version)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 99}', '{"schema": 1, "files": [{"x": 1}]}'])
def test_a_garbled_manifest_is_refused(folder: Path, text: str) -> None:
    version = publish(folder)
    stored(version, "manifest.json").write_text(text)
    with pytest.raises(VersionCorrupt):
        versions.version_fetch(version)


def test_a_manifest_of_another_version_is_refused(folder: Path) -> None:
    one, other = publish(folder, "one"), publish(folder, "other")
    assert one.facts.files == other.facts.files
    stored(one, "manifest.json").write_bytes(stored(other, "manifest.json").read_bytes())
    with pytest.raises(VersionCorrupt, match="other files under the name"):
        versions.version_fetch(one)
    with pytest.raises(VersionCorrupt, match="something else under the name"):
        storage.version_write(folder, one.facts)
    one.manifest = other.manifest
    with pytest.raises(VersionCorrupt, match="is that of"):
        versions.version_fetch(one)


def test_nothing_serves_before_the_first_promotion() -> None:
    with pytest.raises(NoChampion, match="the setup of this service"):
        promotions.champion_get()


def test_promotion_moves_the_champion_and_is_logged_with_who_and_why(folder: Path, reviewer) -> None:
    first, second = publish(folder, "v1"), publish(folder, "v2")
    promotions.version_promote(first, reason="first")
    promotions.version_promote(second, reason="better", by=reviewer)
    promotions.version_promote(second, reason="again")
    assert promotions.champion_get() == second
    assert list(Promotion.objects.values_list("version_id", "reason", "promoted_by__username")) == [
        (second.pk, "better", "rita"),
        (first.pk, "first", None),
    ]


@pytest.fixture
def starter(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(bundled, "STARTER_DIR", folder)
    return folder


def test_registering_the_starter_twice_changes_nothing(starter: Path) -> None:
    version = bundled.starter_register()
    assert bundled.starter_register() == version == promotions.champion_get()
    assert (ModelVersion.objects.count(), Promotion.objects.count()) == (1, 1)


def test_a_newer_starter_replaces_an_older_one(starter: Path) -> None:
    old = bundled.starter_register()
    (starter / "model.safetensors").write_bytes(b"better weights")
    new = bundled.starter_register()
    assert new != old
    assert promotions.champion_get() == new


def test_a_newer_starter_does_not_replace_a_version_that_was_chosen(starter: Path, folder: Path) -> None:
    bundled.starter_register()
    chosen = publish(folder, "our-own")
    promotions.version_promote(chosen, reason="ours")
    (starter / "model.safetensors").write_bytes(b"better weights")
    bundled.starter_register()
    assert promotions.champion_get() == chosen


def test_a_store_that_lost_the_starter_gets_it_again(starter: Path) -> None:
    version = bundled.starter_register()
    stored(version, "manifest.json").unlink()
    bundled.starter_register()
    assert versions.version_fetch(version).is_dir()


@pytest.mark.parametrize("name", ["model.safetensors", "sub/tokenizer.json", "manifest.json"])
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"x")])
def test_publishing_again_mends_what_the_store_has_lost_or_damaged(
    folder: Path, name: str, damage: Callable[[Path], None]
) -> None:
    version = publish(folder)
    damage(stored(version, name))
    with pytest.raises(VersionExists, match=rf"Mended in the store: {name}\."):
        publish(folder)
    promotions.version_promote(version, reason="sound again")
    assert (versions.version_fetch(version) / "model.safetensors").read_bytes() == b"weights" * 1000


def test_publishing_again_mends_a_row_that_cannot_be_read(folder: Path) -> None:
    version = publish(folder)
    ModelVersion.objects.update(manifest={"schema": 99})
    with pytest.raises(VersionExists):
        publish(folder)
    promotions.version_promote(ModelVersion.objects.get(), reason="sound again")
    assert promotions.champion_get() == version


def test_setup_mends_a_damaged_starter(starter: Path) -> None:
    version = bundled.starter_register()
    stored(version, "model.safetensors").write_bytes(b"x")
    assert bundled.starter_register() == version
    assert (versions.version_fetch(version) / "model.safetensors").read_bytes() == b"weights" * 1000


@pytest.mark.parametrize("name", ["", "!!!", "犬", "-_-", "x" * 90])
def test_a_name_that_makes_no_id_is_refused_before_anything_is_stored(folder: Path, name: str) -> None:
    with pytest.raises(RegistryError, match=r"makes no id|too long"):
        publish(folder, name)
    assert not Path(storages["weights"].path("versions")).exists()


def test_the_longest_name_is_published(folder: Path) -> None:
    assert len(publish(folder, "x" * 89).pk) == 100


# --- Retention ---


@pytest.fixture
def four(tmp_path: Path) -> list[ModelVersion]:
    """Four versions, of which none is promoted."""
    return versions_publish(tmp_path, 4)


def promote(*chosen: ModelVersion) -> None:
    for version in chosen:
        promotions.version_promote(version, reason="better")


def test_retention_says_first_what_it_would_remove(four: list[ModelVersion]) -> None:
    promote(four[3])
    assert set(versions.versions_retain(keep=0)) == set(four[:3])
    assert versions.version_fetch(four[0]).is_dir()


def test_retention_keeps_what_may_still_be_needed(four: list[ModelVersion], tmp_path: Path) -> None:
    trained = tmp_path / "trained"
    trained.mkdir()
    (trained / "model.safetensors").write_bytes(b"trained")
    champion = versions.version_publish(
        trained,
        model_name="trained",
        origin="a test",
        licence="Apache-2.0",
        lineage=Lineage(base=four[0].pk),
    )
    promote(four[1], champion)
    versions.version_pin(four[2])
    assert versions.versions_retain(keep=0, dry_run=False) == [four[3]]
    with pytest.raises(NotPromotable, match="removed by retention"):
        promote(four[3])


def test_what_was_unpinned_is_removed_and_may_be_published_again(
    four: list[ModelVersion], tmp_path: Path
) -> None:
    promote(four[3])
    versions.version_pin(four[0])
    versions.version_unpin(four[0])
    assert set(versions.versions_retain(keep=0, dry_run=False)) == set(four[:3])
    again = versions.version_publish(tmp_path / "v0", model_name="v0", origin="again", licence="Apache-2.0")
    assert again == four[0]
    assert (again.facts.origin, again.retired_at, again.files_removed_at) == ("again", None, None)
    promote(again)
    assert versions.version_fetch(again).is_dir()


def test_the_store_is_asked_once_to_remove_a_version(
    four: list[ModelVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(four[3])
    asked: list[str] = []
    monkeypatch.setattr(storage, "version_delete", asked.append)
    for _ in range(2):
        versions.versions_retain(keep=0, dry_run=False)
    assert sorted(asked) == [version.pk for version in four[:3]]


def test_what_could_not_be_removed_is_removed_by_the_next_run(
    four: list[ModelVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(four[3])

    def unavailable(_: str) -> None:
        raise StoreUnavailable("It is down.")

    with monkeypatch.context() as patch:
        patch.setattr(storage, "version_delete", unavailable)
        with pytest.raises(StoreUnavailable):
            versions.versions_retain(keep=0, dry_run=False)
    stored = Path(storages["weights"].path(f"versions/{four[0].pk}/model.safetensors"))
    assert stored.exists()
    assert versions.versions_retain(keep=0, dry_run=False) == []
    assert not stored.exists()


def test_retention_removes_nothing_of_a_version_that_is_being_published_again(
    four: list[ModelVersion], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(four[3])
    with monkeypatch.context() as patch:  # retired, and its removal is due
        patch.setattr(versions, "_version_remove", lambda _: None)
        versions.versions_retain(keep=0, dry_run=False)
    write = storage.version_write

    def written_while_retention_runs(*args):
        manifest = write(*args)
        versions.versions_retain(keep=0, dry_run=False)
        return manifest

    monkeypatch.setattr(storage, "version_write", written_while_retention_runs)
    again = versions.version_publish(tmp_path / "v0", model_name="v0", origin="again", licence="Apache-2.0")
    assert again.retired_at is None
    assert (versions.version_fetch(again) / "model.safetensors").read_bytes() == b"v0"


def test_what_is_pinned_while_retention_decides_is_kept(
    four: list[ModelVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(four[3])
    needed = versions._versions_needed

    def pinned_then(*args):
        decided = needed(*args)
        versions.version_pin(four[0])
        return decided

    monkeypatch.setattr(versions, "_versions_needed", pinned_then)
    assert set(versions.versions_retain(keep=0, dry_run=False)) == set(four[1:3])
    assert versions.version_fetch(four[0]).is_dir()


def test_what_is_gone_cannot_be_pinned(four: list[ModelVersion]) -> None:
    promote(four[3])
    versions.versions_retain(keep=0, dry_run=False)
    with pytest.raises(NotPromotable, match="removed by retention"):
        versions.version_pin(four[0])
    assert not ModelVersion.objects.filter(pinned=True).exists()


@pytest.mark.parametrize("version", ["", "a b", "a\0b", "\udcff", "größer-1", "../../etc", "x" * 300, "v0\n"])
def test_an_id_that_is_none_is_just_unknown(four: list[ModelVersion], version: str) -> None:
    with pytest.raises(VersionUnknown, match=f"There is no version .*{four[3].pk}") as error:
        versions.version_get(version)
    str(error.value).encode()


def test_fewer_than_no_versions_cannot_be_kept(four: list[ModelVersion]) -> None:
    with pytest.raises(RegistryError, match="give 0 or more"):
        versions.versions_retain(keep=-2)


def test_the_code_that_the_starter_carries_for_others_is_our_own() -> None:
    carried = bundled.STARTER_DIR / "efficientnet_lite.py"
    assert carried.read_bytes() == Path(efficientnet_lite.__file__).read_bytes()
