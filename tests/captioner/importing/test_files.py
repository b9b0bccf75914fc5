"""What an import takes of a folder, and what it refuses before anything is loaded."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from captioner.exceptions import IncompatibleModel
from captioner.importing import pickles
from captioner.importing.files import checkpoint_stage, names_taken
from tests.captioner.inference.test_loading import edit_json

Saves = Callable[..., Path]


def stage(folder: Path) -> Path:
    staged = folder.parent.parent / "stage" / folder.name
    checkpoint_stage(folder, staged)
    return staged


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("published", "taken"),
    [
        ({"model.safetensors", "pytorch_model.bin", "tf_model.h5"}, {"model.safetensors"}),
        ({"pytorch_model.bin", "flax_model.msgpack", "training_args.bin"}, {"pytorch_model.bin"}),
        (
            {"pytorch_model.bin.index.json", "pytorch_model-00001-of-00001.bin", "optimizer.bin"},
            {"pytorch_model.bin.index.json", "pytorch_model-00001-of-00001.bin"},
        ),
        (
            {
                "model.safetensors.index.json",
                "model-00001-of-00001.safetensors",
                "pytorch_model.bin.index.json",
            },
            {"model.safetensors.index.json", "model-00001-of-00001.safetensors"},
        ),
        (
            {"config.json", "bpe.codes", "spiece.model", "qwen.tiktoken", "modeling.py", "LICENSE"},
            {"config.json", "bpe.codes", "spiece.model", "qwen.tiktoken", "LICENSE"},
        ),
    ],
)
def test_only_what_a_captioner_is_loaded_from_is_taken(published: set[str], taken: set[str]) -> None:
    assert set(names_taken(published)) == taken


def test_a_pickle_becomes_safetensors_and_nothing_else_of_it_is_kept(
    checkpoint: Saves, pickled: Saves
) -> None:
    weights = load_file(checkpoint("blip", "as_safetensors") / "model.safetensors")
    folder = pickled("blip")
    (folder / "modeling.py").write_text("print('mine')")
    staged = stage(folder)
    converted = load_file(staged / "model.safetensors")
    assert converted.keys() == weights.keys()
    assert all(converted[name].equal(weights[name]) for name in weights)
    assert not {name for name in names(staged) if name.endswith((".bin", ".py"))}


def test_shards_keep_an_index(pickled: Saves, monkeypatch: pytest.MonkeyPatch) -> None:
    def convert(pickle: Path, target: Path) -> None:
        header = json.dumps({f"of {pickle.name}": {}}).encode()
        target.write_bytes(len(header).to_bytes(8, "little") + header)

    monkeypatch.setattr(pickles, "_pickle_convert", convert)
    staged = stage(pickled("git", shards=2))
    places = json.loads((staged / "model.safetensors.index.json").read_text())["weight_map"]
    assert places == {
        f"of pytorch_model-0000{number}-of-00002.bin": f"model-0000{number}-of-00002.safetensors"
        for number in (1, 2)
    }
    assert "pytorch_model.bin.index.json" not in names(staged)


def test_a_missing_shard_is_named(pickled: Saves) -> None:
    folder = pickled("git", shards=3)
    (folder / "pytorch_model-00002-of-00003.bin").unlink()
    with pytest.raises(
        IncompatibleModel, match=r"3 files, of which pytorch_model-00002-of-00003\.bin is missing"
    ):
        stage(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "tokenizer.json"])
def test_a_pointer_of_git_lfs_is_told(checkpoint: Saves, name: str) -> None:
    folder = checkpoint("git")
    (folder / "model.safetensors").unlink()
    (folder / name).write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 989\n"
    )
    with pytest.raises(IncompatibleModel, match=f"{name} of tiny-git is a Git LFS pointer.*git lfs pull"):
        stage(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "README.md"])
def test_a_link_that_leaves_the_folder_is_refused(checkpoint: Saves, name: str) -> None:
    folder = checkpoint("git")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to("/etc/passwd")
    with pytest.raises(IncompatibleModel, match=f"{name} of tiny-git is a link that leaves the folder"):
        stage(folder)


def test_a_link_within_the_folder_is_followed_and_one_to_nowhere_is_told(checkpoint: Saves) -> None:
    folder = checkpoint("git")
    (folder / "model.safetensors").rename(folder / "weights")
    (folder / "model.safetensors").symlink_to("weights")
    staged = stage(folder)
    assert not (staged / "model.safetensors").is_symlink()
    (folder / "weights").unlink()
    with pytest.raises(IncompatibleModel, match="a link that leads nowhere"):
        stage(folder.rename(folder.with_name("broken")))


def test_a_pipe_is_no_file(checkpoint: Saves) -> None:
    folder = checkpoint("git")
    os.mkfifo(folder / "LICENSE")
    assert "LICENSE" not in names(stage(folder))


@pytest.mark.parametrize(
    ("file", "changes", "complaint"),
    [
        ("config.json", {"num_hidden_layers": 300_000}, "asks for 300,000 as num_hidden_layers"),
        (
            "config.json",
            {"vision_config": {"num_hidden_layers": 10**9}},
            "1,000,000,000 as num_hidden_layers",
        ),
        (
            "preprocessor_config.json",
            {"size": {"height": 10**6, "width": 10**6}},
            "photos of 1,000,000 pixels",
        ),
        (
            "preprocessor_config.json",
            {"crop_size": 50_000, "size": {"shortest_edge": 50_000}},
            "50,000 pixels",
        ),
    ],
)
def test_absurd_configurations_are_refused(
    checkpoint: Saves, file: str, changes: dict[str, object], complaint: str
) -> None:
    folder = checkpoint("git")
    edit_json(folder / file, **changes)
    with pytest.raises(IncompatibleModel, match=complaint):
        stage(folder)


@pytest.mark.parametrize("text", ["{", "[]", "null", "[" * 100_000, "\xff"])
def test_a_configuration_that_is_none_is_refused(checkpoint: Saves, text: str) -> None:
    folder = checkpoint("git")
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(IncompatibleModel, match=r"config\.json cannot be read"):
        stage(folder)
