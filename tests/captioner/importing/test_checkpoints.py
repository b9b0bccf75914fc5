"""From the hub or a folder into the registry: what is tried is what is published."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from captioner.exceptions import IncompatibleModel
from captioner.importing.checkpoints import checkpoint_import
from captioner.inference.loading import load_model
from models_registry import promotions, versions
from models_registry.exceptions import RegistryError
from models_registry.models import ModelVersion
from tests.captioner.importing.hub import Hub
from tests.captioner.inference.test_loading import edit_json

pytestmark = pytest.mark.django_db
Saves = Callable[..., Path]


def publish(source: object, **options: object):
    return checkpoint_import(str(source), licence="MIT", **options)  # type: ignore[arg-type]


def test_a_hub_id_with_pickles_only_is_fetched_converted_tried_and_promoted(hub: Hub, pickled: Saves) -> None:
    hub.folders["owner/tiny-blip"] = {"main": pickled("blip")}
    seen: list[tuple[str, int, int]] = []
    version, caption, is_new = publish(
        "owner/tiny-blip", promote=True, progress=lambda *step: seen.append(step)
    )
    assert is_new
    assert caption
    assert promotions.champion_get() == version
    files = {entry.name for entry in version.facts.files}
    assert {"model.safetensors", "tokenizer.json"} <= files
    assert not {name for name in files if name.endswith(".bin")}
    assert version.facts.origin == f"hub owner/tiny-blip@{hub.commit('owner/tiny-blip', 'main')}"
    load_model(versions.version_fetch(version))
    stages = list(dict.fromkeys(stage for stage, *_ in seen))
    assert stages == ["fetching", "checking", "trying", "publishing"]
    fetched = [(done, total) for stage, done, total in seen if stage == "fetching"]
    assert fetched == sorted(fetched)
    assert fetched[-1][0] == fetched[-1][1] > 10_000


def test_what_was_cut_is_resumed_and_what_was_fetched_is_not_kept(
    hub: Hub, checkpoint: Saves, settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = checkpoint("git")
    size = (folder / "model.safetensors").stat().st_size
    hub.folders["owner/git"] = {"main": folder}
    hub.cut["model.safetensors"] = 5000
    monkeypatch.setattr(
        "huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000
    )  # what may be lost, ten megabytes

    def killed(_: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.file_download.time.sleep", killed)  # before it tries again by itself
        with pytest.raises(KeyboardInterrupt):
            publish("owner/git")
    assert not ModelVersion.objects.exists()
    publish("owner/git")
    assert hub.sent["model.safetensors"] == size
    assert list((settings.DATA_DIR / "imports").iterdir()) == []


def test_other_bytes_than_announced_are_refused(
    hub: Hub, checkpoint: Saves, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.folders["owner/git"] = {"main": checkpoint("git")}
    monkeypatch.setattr("captioner.importing.hub.file_sha256", lambda _: "another")
    with pytest.raises(RegistryError, match=r"model\.safetensors of owner/git is not what the hub announced"):
        publish("owner/git")


def test_a_revision_is_fetched_and_an_unknown_one_told(hub: Hub, checkpoint: Saves) -> None:
    hub.folders["owner/tiny"] = {"main": checkpoint("git"), "v1": checkpoint("vit_gpt2")}
    version = publish("owner/tiny", revision="v1").version
    assert version.facts.origin.endswith(hub.commit("owner/tiny", "v1"))
    assert "vision-encoder-decoder" in (versions.version_fetch(version) / "config.json").read_text()
    for source, revision in (("owner/tiny", "v9"), ("owner/nobody", None)):
        with pytest.raises(RegistryError, match=f"{source} is no folder here and could not be fetched"):
            publish(source, revision=revision)


def test_groups_of_beams_become_beams(checkpoint: Saves) -> None:
    folder = checkpoint("blip")
    edit_json(folder / "generation_config.json", num_beams=4, num_beam_groups=2, diversity_penalty=1.0)
    assert publish(folder).caption


@pytest.mark.parametrize(
    "changes", [{"penalty_alpha": 0.6, "top_k": 4}, {"dola_layers": "high"}, {"force_words_ids": [[5]]}]
)
def test_other_searches_than_ours_are_not_made(checkpoint: Saves, changes: dict[str, object]) -> None:
    folder = checkpoint("git")
    edit_json(folder / "generation_config.json", **changes)
    assert publish(folder).caption


def test_a_model_that_says_nothing_is_no_success(checkpoint: Saves) -> None:
    folder = checkpoint("vit_gpt2")
    tokens = json.loads((folder / "config.json").read_text())["decoder"]["vocab_size"]
    end = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
    edit_json(
        folder / "generation_config.json", suppress_tokens=[each for each in range(tokens) if each != end]
    )
    with pytest.raises(IncompatibleModel, match="nothing to say"):
        publish(folder)
    assert not ModelVersion.objects.exists()


@pytest.mark.parametrize(
    ("tokenizer_class", "complaint"),
    [
        ("PhobertTokenizer", r"PhobertTokenizer reads bpe\.codes and vocab\.txt, which must be added"),
        ("T5Tokenizer", r"T5Tokenizer reads spiece\.model"),
        (None, "a tokenizer_config.json that names its tokenizer_class"),
    ],
)
def test_files_that_a_tokenizer_lacks_are_named(
    checkpoint: Saves, tokenizer_class: str | None, complaint: str
) -> None:
    folder = checkpoint("git")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    if tokenizer_class:
        (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": tokenizer_class}))
    else:
        (folder / "vocab.json").write_text("{}")
    with pytest.raises(IncompatibleModel, match=complaint):
        publish(folder)
