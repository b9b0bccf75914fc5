"""Which files of a checkpoint an import takes, and whether they are what their names say."""

import json
import shutil
from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from captioner.exceptions import IncompatibleModel
from captioner.importing.pickles import pickles_convert, tensor_names

# What a captioner is loaded from beside its weights, at the top of its folder; nothing that could be code.
_PATTERNS = (
    *("*.json", "*.txt", "*.model", "*.tiktoken", "*.codes", "*.bpe", "*.spm", "*.vocab"),
    *("README.md", "LICENSE*", "NOTICE*", "ATTRIBUTION*"),
)
_INDEX = ".index.json"
# As transformers names them, in the order of preference.
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_POINTER = b"version https://git-lfs.github.com/spec/v1"
_MOST_SIDE = 2048  # pixels that a photo is brought to for the model


def names_taken(names: Collection[str]) -> list[str]:
    """Those of a checkpoint's files that an import takes: what is not weights, and the best of its weights."""
    weights = next((each for each in _WEIGHTS if each in names or each + _INDEX in names), None)
    taken = [
        name
        for name in names
        if any(fnmatchcase(name, pattern) for pattern in _PATTERNS)
        and not (name.endswith(_INDEX) and name != f"{weights}{_INDEX}")
    ]
    if weights is not None and weights in names:
        return sorted([*taken, weights])
    stem, _, suffix = (weights or "").partition(".")
    return sorted([*taken, *(name for name in names if fnmatchcase(name, f"{stem}-*-of-*.{suffix}"))])


def checkpoint_stage(folder: Path, stage: Path) -> None:
    """Copy what an import takes from `folder` to `stage`, a new one, with pickled weights as safetensors.

    Raises `IncompatibleModel`, naming the file, for links that leave `folder`, Git LFS pointers, missing shards,
    pickles that cannot be converted, and a configuration that asks for more than the weights hold.
    """
    stage.mkdir(parents=True)
    taken = {name: _require_real(folder, name) for name in names_taken(_file_names(folder))}
    shards = [name for name in taken if name + _INDEX in taken] or [
        shard for name in taken if name.endswith(_INDEX) for shard in _shards(taken[name])
    ]
    for name in shards:
        if name not in taken:
            raise IncompatibleModel(
                f"{folder.name} is incomplete: its weights lie in {len(shards)} files, of which {name} is missing."
            )
    pickles = [path for name, path in taken.items() if fnmatchcase(name, "pytorch_model*.bin")]
    for name, path in taken.items():
        if path not in pickles and name != f"pytorch_model.bin{_INDEX}":
            shutil.copyfile(path, stage / name)
    pickles_convert(pickles, stage)
    _configuration_check(stage)


def _file_names(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir() if path.is_file() or path.is_symlink()]
    except OSError as error:
        raise IncompatibleModel(f"{folder} cannot be read: {error.strerror}.") from error


def _require_real(folder: Path, name: str) -> Path:
    """Where the file of that name really lies. Raises `IncompatibleModel` unless it is one, within `folder`."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise IncompatibleModel(
            f"{name} of {folder.name} is a link that leaves the folder, and what it leads to is not published. "
            "Copy the folder with its files first: cp -rL."
        )
    if not path.is_file():
        raise IncompatibleModel(f"{name} of {folder.name} is a link that leads nowhere.")
    with path.open("rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            raise IncompatibleModel(
                f"{name} of {folder.name} is a Git LFS pointer and not the file; run `git lfs pull` in the folder."
            )
    return path


def _shards(index: Path) -> list[str]:
    """The files that an index says the weights lie in."""
    places = _json_read(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(place, str) for place in places.values()):
        raise IncompatibleModel(f"{index.name} says of no tensor where it is.")
    return sorted(set(places.values()))


def _configuration_check(stage: Path) -> None:
    """Refuse what would take hours to build, or all memory, before anything is built."""
    tensors = sum(len(tensor_names(path)) for path in stage.glob("*.safetensors"))
    if tensors and (stage / "config.json").is_file():
        for name, number in _numbers(_json_read(stage / "config.json")):
            if "layer" in name and number > max(1000, tensors):
                raise IncompatibleModel(
                    f"config.json of {stage.name} asks for {number:,} as {name}; its weights are {tensors:,} tensors."
                )
    for file in ("preprocessor_config.json", "processor_config.json"):
        if not (stage / file).is_file():
            continue
        for name, number in _numbers(_json_read(stage / file)):
            if name in {"height", "width", "size", "shortest_edge", "longest_edge"} and number > _MOST_SIDE:
                raise IncompatibleModel(
                    f"{file} of {stage.name} asks for photos of {number:,} pixels as {name}; at most {_MOST_SIDE:,} "
                    "are taken."
                )


def _numbers(value: Any, name: str = "") -> Iterator[tuple[str, int]]:
    """The whole numbers in a configuration, at any depth, each with its name."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _numbers(inner, key)
    elif isinstance(value, int):
        yield name, value


def _json_read(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(fields, dict):
            raise TypeError("it is no JSON object")
    except (ValueError, TypeError, RecursionError) as error:
        raise IncompatibleModel(f"{path.name} cannot be read: {error}.") from error
    return fields
