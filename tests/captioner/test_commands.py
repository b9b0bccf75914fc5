import json
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from captioner.importing.hub import Progress
from captioner.serving.process import serving
from models_registry import bundled, promotions
from models_registry.exceptions import NoChampion
from models_registry.models import ModelVersion
from tests.captioner.inference.checkpoints import SAVERS
from tests.conftest import FakeEngine, draw_jpeg

pytestmark = pytest.mark.django_db


def run(*arguments: object) -> tuple[str, str]:
    out, err = StringIO(), StringIO()
    call_command(*map(str, arguments), stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


# --- caption ---


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "inner").mkdir(parents=True)
    (folder / "b.jpg").write_bytes(draw_jpeg((20, 10)))
    (folder / "inner" / "a.JPEG").write_bytes(draw_jpeg((30, 10)))
    (folder / "notes.txt").write_text("not a photo")
    return folder


@pytest.fixture
def engine(fake_engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    monkeypatch.setattr(serving, "load", lambda **options: fake_engine)
    return fake_engine


def test_a_folder_is_captioned_recursively_as_text(engine: FakeEngine, folder: Path) -> None:
    out, _ = run("caption", folder)
    assert out.splitlines() == [
        f"{folder}/b.jpg\ta 20 by 10 photo",
        f"{folder}/inner/a.JPEG\ta 30 by 10 photo",
    ]


def test_more_photos_than_a_batch_keep_their_order(engine: FakeEngine, tmp_path: Path) -> None:
    for width in range(1, 31):
        (tmp_path / f"{width:02}.jpg").write_bytes(draw_jpeg((width, 5)))
    out, _ = run("caption", tmp_path)
    assert [line.split("\t")[1] for line in out.splitlines()] == [f"a {w} by 5 photo" for w in range(1, 31)]


def test_json_lines_carry_alternatives_and_word_probabilities(engine: FakeEngine, folder: Path) -> None:
    out, _ = run("caption", folder / "b.jpg", "--format", "jsonl", "--num-captions", 2)
    assert json.loads(out) == {
        "photo": f"{folder}/b.jpg",
        "caption": "a 20 by 10 photo",
        "alternatives": ["a 20 by 10 photo number 1"],
        "words": [{"text": "a", "probability": 0.9}, {"text": "photo", "probability": 0.4}],
        "model_version": "fake-1",
    }
    assert engine.submitted[0].num_beams == 2


def test_a_broken_photo_is_named_and_does_not_stop_the_others(engine: FakeEngine, folder: Path) -> None:
    (folder / "a.jpg").write_bytes(b"broken")
    out, err = StringIO(), StringIO()
    with pytest.raises(CommandError, match="1 of 3 photos"):
        call_command("caption", str(folder), stdout=out, stderr=err)
    assert len(out.getvalue().splitlines()) == 2
    assert err.getvalue().startswith(f"{folder}/a.jpg: ")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["/does/not/exist.jpg"], "does not exist"),
        (["{folder}/inner/empty"], "No photos found"),
        (["{folder}", "--num-captions", "99"], "num_captions must be"),
    ],
)
def test_what_cannot_be_done_is_said(
    engine: FakeEngine, folder: Path, arguments: list[str], complaint: str
) -> None:
    (folder / "inner" / "empty").mkdir()
    with pytest.raises(CommandError, match=complaint):
        run("caption", *[argument.format(folder=folder) for argument in arguments])


# --- import_model ---


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    SAVERS["git"](tmp_path / "tiny-git")
    return tmp_path / "tiny-git"


def test_a_folder_is_tried_and_published(checkpoint: Path) -> None:
    (checkpoint / "training_args.bin").write_bytes(b"a pickle nobody asked for")
    out, _ = run("import_model", checkpoint, "--licence", "MIT")
    version = ModelVersion.objects.get()
    assert f"Published {version.pk}" in out
    assert (version.model_name, version.manifest["licence"]) == ("tiny-git", "MIT")
    files = {entry["name"] for entry in version.manifest["files"]}
    assert "model.safetensors" in files
    assert "training_args.bin" not in files
    with pytest.raises(NoChampion):
        promotions.champion_get()


def test_an_imported_model_may_serve_at_once(checkpoint: Path) -> None:
    run("import_model", checkpoint, "--promote", "--name", "ours")
    assert promotions.champion_get().model_name == "ours"


def test_importing_the_same_again_says_so_and_may_promote_it(checkpoint: Path) -> None:
    run("import_model", checkpoint)
    assert "Nothing new, published before: tiny-git-" in run("import_model", checkpoint)[0]
    with pytest.raises(NoChampion):
        promotions.champion_get()
    assert "It is the champion." in run("import_model", checkpoint, "--promote")[0]
    assert promotions.champion_get() == ModelVersion.objects.get()


def test_a_folder_is_named_by_where_it_is(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkpoint)
    run("import_model", ".")
    assert ModelVersion.objects.get().model_name == "tiny-git"


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="no weights"):
        run("import_model", tmp_path)


def test_a_hub_id_is_fetched_and_named_by_its_commit(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def hub_download(hub_id: str, revision: str | None, progress: Progress) -> tuple[Path, str]:
        calls.append((hub_id, revision))
        progress(6 * 10**8, 10**9)
        return checkpoint, "abc123"

    monkeypatch.setattr("captioner.importing.checkpoints.hub_download", hub_download)
    _, err = run("import_model", "owner/captioner", "--revision", "v1")
    assert calls == [("owner/captioner", "v1")]
    version = ModelVersion.objects.get()
    assert (version.model_name, version.manifest["origin"]) == ("captioner", "hub owner/captioner@abc123")
    assert err.splitlines() == [
        "Fetching 0.60 of 1.00 GB ...",
        "Checking ...",
        "Trying ...",
        "Publishing ...",
    ]


def test_an_unreachable_hub_is_said_plainly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CommandError, match="owner/name is no folder here and could not be fetched"):
        run("import_model", "owner/name")


def test_nonsense_is_neither_a_folder_nor_a_hub_id() -> None:
    with pytest.raises(CommandError, match="neither a folder here nor a hub id"):
        run("import_model", "a/b/c/d")


# --- setup ---


def test_setup_prepares_everything_and_shows_the_password_once(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, settings, tmp_path: Path, client
) -> None:
    settings.STATIC_ROOT = tmp_path / "static"
    monkeypatch.setattr(bundled, "STARTER_DIR", checkpoint)
    out, _ = run("setup")
    password = out.split("admin / ")[1].split()[0]
    assert client.login(username="admin", password=password)
    assert promotions.champion_get().pk in out
    assert "admin /" not in run("setup")[0]
