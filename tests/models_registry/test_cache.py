"""The bounded cache of fetched versions."""

import os
import shutil
from pathlib import Path
from types import ModuleType

import pytest

from models_registry import cache, storage
from models_registry.manifest import Manifest, folder_entries


@pytest.fixture
def root(settings, tmp_path: Path) -> Path:
    """Three versions of 0.4 MB each; `a` was used last, `c` longest ago. Two of them fit."""
    settings.DATA_DIR = tmp_path
    settings.MODEL_CACHE_MAX_MB = 1
    root = cache._root()
    for age, name in enumerate("abc"):
        (root / name / "sub").mkdir(parents=True)
        (root / name / "sub" / "model.safetensors").write_bytes(b"x" * 400_000)
        os.utime(root / name, (1_000_000 - age, 1_000_000 - age))
    return root


def names(root: Path) -> set[str]:
    return {folder.name for folder in root.iterdir()}


def test_the_least_recently_used_go_until_the_rest_fits(root: Path) -> None:
    assert cache.cache_clean() == ["c"]
    assert names(root) == {"a", "b"}
    assert cache.cache_clean() == []


def test_what_is_needed_stays_and_others_make_room_for_it(root: Path) -> None:
    assert cache.cache_clean(keep=["c"]) == ["b"]
    assert names(root) == {"a", "c"}


def test_what_is_needed_stays_even_if_it_is_too_much(root: Path) -> None:
    assert cache.cache_clean(keep=["a", "b", "c"]) == []
    assert names(root) == {"a", "b", "c"}


def test_what_is_read_was_used_last(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "version_folder", lambda _: None)  # as where the store is no local folder
    manifest = Manifest("c", "c", "a test", "MIT", folder_entries(root / "c"))
    assert cache.version_read(manifest) == root / "c"
    assert cache.cache_clean() == ["b"]


def test_drafts_of_killed_processes_go_and_those_under_way_stay(root: Path) -> None:
    for name, times in ((".fetch-old", (1, 1)), (".fetch-new", None)):
        (root / name).mkdir()
        os.utime(root / name, times)
    cache.cache_clean(keep=["a", "b", "c"])
    assert names(root) == {"a", "b", "c", ".fetch-new"}


@pytest.mark.parametrize(
    ("module", "step"),
    [(cache, "_used_at"), (os, "walk"), (cache, "_remove")],
    ids=["age", "size", "removal"],
)
def test_what_another_process_removes_meanwhile_is_gone(
    root: Path, monkeypatch: pytest.MonkeyPatch, module: ModuleType, step: str
) -> None:
    original, remove = getattr(module, step), shutil.rmtree

    def vanished(folder: Path, *arguments: object, **options: object):
        if Path(folder).name == "c":
            monkeypatch.setattr(module, step, original)  # which removing it needs
            remove(folder, ignore_errors=True)
        return original(folder, *arguments, **options)

    monkeypatch.setattr(module, step, vanished)
    assert cache.cache_clean() == []
    assert names(root) == {"a", "b"}


def test_an_empty_cache_needs_no_cleaning(settings, tmp_path: Path) -> None:
    settings.DATA_DIR = tmp_path
    assert cache.cache_clean() == []
