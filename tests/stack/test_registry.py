"""The registry on real S3 servers: moto, and Ceph's gateway, which checks signatures."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import storages

import captioner.settings
from models_registry import cache, promotions, storage, versions
from models_registry.exceptions import StoreUnavailable, VersionCorrupt
from models_registry.manifest import CARD_NAME, MANIFEST_NAME, DataSnapshot, Lineage, Manifest
from models_registry.models import ModelVersion
from tests.models_registry.versions import manifest_race
from tests.processes import ROOT, free_port
from tests.stack import ceph, servers

pytestmark = [pytest.mark.stack, pytest.mark.django_db]

Environment = dict[str, str]


@pytest.fixture(scope="module", params=[servers.s3, ceph.gateway], ids=["moto", "ceph"])
def s3(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    with request.param(tmp_path_factory.mktemp("s3")) as environment:
        yield environment


@pytest.fixture
def store(s3: Environment, monkeypatch: pytest.MonkeyPatch, settings, tmp_path: Path) -> Callable[..., None]:
    """The weights are kept in a bucket of their own; call it to change how it is reached."""

    def configure(**changes: str) -> None:
        for name, value in (s3 | changes).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(captioner.settings, "S3_BUCKET", os.environ["S3_BUCKET"])
        monkeypatch.setattr(captioner.settings, "S3_ENDPOINT_URL", os.environ["S3_ENDPOINT_URL"])
        settings.STORAGES = settings.STORAGES | {
            "weights": captioner.settings._object_storage(f"weights-{tmp_path.name}")
        }

    configure()
    settings.DATA_DIR = tmp_path / "data"
    return configure


@pytest.fixture
def folder(tmp_path: Path, store: Callable[..., None]) -> Path:
    return make_folder(tmp_path / "weights-to-publish")


def make_folder(folder: Path, weights: bytes = b"weights" * 2_000_000) -> Path:
    """Large enough for an upload in parts."""
    (folder / "data").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "data" / "feedback.jsonl").write_text('{"caption": "a dog"}\n')
    return folder


def publish(folder: Path, name: str = "tiny") -> ModelVersion:
    lineage = Lineage(base="tiny-0", data=DataSnapshot("data/feedback.jsonl", "1" * 64, {"train": 1}))
    return versions.version_publish(
        folder, model_name=name, origin="a test", licence="Apache-2.0", lineage=lineage
    )


def stored(version: ModelVersion | Manifest, name: str) -> str:
    return f"versions/{getattr(version, 'version', None) or version.pk}/{name}"


def test_a_version_is_published_fetched_promoted_and_rolled_back(folder: Path, tmp_path: Path) -> None:
    first = publish(folder)
    second = publish(make_folder(tmp_path / "better", b"better"), "better")
    fetched = versions.version_fetch(first)
    assert (fetched / "model.safetensors").read_bytes() == b"weights" * 2_000_000
    assert (fetched / "data" / "feedback.jsonl").exists()
    for version in (first, second):
        promotions.version_promote(version, reason="better")
    assert promotions.champion_get() == second
    assert promotions.champion_rollback(reason="worse") == promotions.champion_get() == first


def test_the_card_tells_people_in_the_bucket_where_a_version_comes_from(folder: Path) -> None:
    version = publish(folder)
    card = storages["weights"].open(stored(version, CARD_NAME)).read().decode()
    assert f"# {version.pk}" in card
    assert "| Trained from | tiny-0 |" in card
    assert "| train | 1 |" in card


def test_of_eight_writers_of_one_manifest_one_wins(store: Callable[..., None]) -> None:
    manifest_race()


def test_one_flipped_byte_in_the_store_is_refused_and_nothing_of_it_is_kept(folder: Path) -> None:
    version = publish(folder)
    flipped = bytearray((folder / "model.safetensors").read_bytes())
    flipped[3] ^= 1
    storages["weights"].save(stored(version, "model.safetensors"), ContentFile(bytes(flipped)))
    with pytest.raises(VersionCorrupt, match=r"model\.safetensors is not what was published"):
        versions.version_fetch(version)
    assert not list(cache._root().iterdir())


@pytest.mark.parametrize("name", ["model.safetensors", MANIFEST_NAME])
def test_what_is_missing_in_the_store_is_told(folder: Path, name: str) -> None:
    version = publish(folder)
    storages["weights"].delete(stored(version, name))
    with pytest.raises(VersionCorrupt, match=r"(missing|no manifest) in the store"):
        versions.version_fetch(version)


def test_what_was_fetched_once_needs_no_store(folder: Path, store: Callable[..., None]) -> None:
    version = publish(folder)
    versions.version_fetch(version)
    store(S3_ENDPOINT_URL=f"http://127.0.0.1:{free_port()}")
    assert versions.version_fetch(version).is_dir()


def test_what_was_never_fetched_needs_the_store_and_says_so(folder: Path, store: Callable[..., None]) -> None:
    version = publish(folder)
    store(S3_ENDPOINT_URL=f"http://127.0.0.1:{free_port()}")
    with pytest.raises(StoreUnavailable, match="S3_ENDPOINT_URL"):
        versions.version_fetch(version)


def test_a_copy_that_rotted_is_fetched_again(folder: Path) -> None:
    version = publish(folder)
    copy = versions.version_fetch(version) / "model.safetensors"
    copy.write_bytes(b"rotten")
    assert versions.version_fetch(version) == copy.parent
    assert copy.read_bytes() == b"weights" * 2_000_000


# moto checks no signatures
@pytest.mark.parametrize("s3", [ceph.gateway], ids=["ceph"], indirect=True, scope="module")
def test_a_wrong_key_is_refused_readably(folder: Path, store: Callable[..., None]) -> None:
    store(S3_SECRET_KEY="not-the-secret")
    with pytest.raises(StoreUnavailable, match="SignatureDoesNotMatch"):
        publish(folder)
    assert not ModelVersion.objects.exists()


def test_retention_removes_what_the_store_holds(folder: Path, tmp_path: Path) -> None:
    version = publish(folder)
    promotions.version_promote(
        publish(make_folder(tmp_path / "better", b"better"), "better"), reason="better"
    )
    assert versions.versions_retain(keep=0, dry_run=False) == [version]
    assert not list(storage.stored_names(storages["weights"], stored(version, "")))
    assert publish(folder) == version


# --- Racing, and killed at each step --------------------------------------------------------------------------------


def publishers(what: str, tmp_path: Path, **environment: str) -> list[dict]:
    environment |= {
        "PATH": os.environ["PATH"],
        "CAPTIONER_DATA_DIR": str(tmp_path / "data"),
        "DJANGO_SETTINGS_MODULE": "captioner.settings",
        "PYTHONPATH": str(ROOT),
    }
    servers.manage(environment, "migrate", "--verbosity", "0")
    script = ROOT / "tests" / "stack" / "publishers.py"
    result = subprocess.run(
        [sys.executable, script, what, tmp_path / "folders"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def require_one_winner(report: dict) -> None:
    assert sorted(report["statuses"]) == [0, *[3] * 7], "one has published it, for the others it exists"
    assert report["partial"] == []
    assert report["champion"].startswith("tiny-")


def require_clean_kills(reports: list[dict], least: int) -> None:
    assert len(reports) >= least
    for report in reports:
        assert report["status"] == -signal.SIGKILL
        assert (report["partial"], report["champion_moved"]) == ([], False), report
        assert (report["again"], report["champion_moved_then"]) == (0, True), report


def test_of_eight_publishers_of_one_version_one_wins(s3: Environment, tmp_path: Path) -> None:
    require_one_winner(*publishers("race", tmp_path, **s3))


def test_so_it_is_where_the_store_is_a_folder(tmp_path: Path) -> None:
    require_one_winner(*publishers("race", tmp_path))


def test_a_publisher_killed_at_any_request_leaves_nothing_partial_and_can_begin_again(
    s3: Environment, tmp_path: Path
) -> None:
    # Of two files: looked for, written, read again. Then the manifest, then the card, each before and after.
    require_clean_kills(publishers("kill", tmp_path, **s3), least=2 * (2 * 3 + 2))


def test_so_it_is_for_one_whose_store_is_a_folder(tmp_path: Path) -> None:
    # Two files and the card are synced and renamed, the manifest is synced and linked.
    require_clean_kills(publishers("kill", tmp_path), least=2 * (3 * 2 + 2))
