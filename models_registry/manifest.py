"""The manifest: what a version consists of, where it comes from, and how to tell its bytes from any others."""

import hashlib
import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from models_registry.exceptions import RegistryError, VersionCorrupt
from models_registry.files import file_sha256

SCHEMA = 2
_READABLE_SCHEMAS = frozenset({1, 2})  # the first one had no lineage and no date
MANIFEST_NAME = "manifest.json"
CARD_NAME = "MODEL_CARD.md"  # a rendering of the manifest, see `models_registry.card`


@dataclass(frozen=True, slots=True)
class FileEntry:
    name: str  # relative to the version's folder, with forward slashes; see `file_name_is_safe`
    size: int  # bytes
    sha256: str

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "FileEntry":
        """Raises `VersionCorrupt` for a name that could lead out of the version's folder, `TypeError`."""
        entry = cls(**fields)
        if not (
            type(entry.name) is type(entry.sha256) is str and type(entry.size) is int and entry.size >= 0
        ):
            raise TypeError(f"name, size or sha256 of {entry.name!r} is of the wrong type")
        if not file_name_is_safe(entry.name):
            raise VersionCorrupt(f"The manifest names a file {entry.name!r}, which no version may hold.")
        return entry


@dataclass(frozen=True, slots=True)
class DataSnapshot:
    """What a version was trained on."""

    uri: str  # where it is kept: a file of the version itself (`data/feedback.jsonl`), or any other address
    sha256: str
    counts: Mapping[str, int] = field(default_factory=dict)  # rows or photos per set
    split_salt: str = ""  # decides which photos are held out


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where a version comes from, so that it can be explained and made again. Everything is plain JSON."""

    parent: str | None = None  # the version that served when this one was trained
    base: str | None = None  # the version that the training started from
    data: DataSnapshot | None = None
    code_revision: str = ""
    environment: Mapping[str, Any] = field(default_factory=dict)  # versions of Python and libraries, the CPU
    config: Mapping[str, Any] = field(default_factory=dict)  # of the training
    seed: int | None = None
    decoding: Mapping[str, Any] = field(default_factory=dict)  # default decoding parameters
    preprocessing_signature: str = ""
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # set -> metric -> value
    gate: Mapping[str, Any] | None = None  # verdict and reasons, None where no gate was asked

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Lineage":
        """Raises `TypeError` for a field of the wrong type."""
        data = fields.get("data")
        for name in ("environment", "config", "decoding", "metrics", "gate"):
            value = fields.get(name, {})
            if not (isinstance(value, Mapping) or (value is None and name == "gate")):
                raise TypeError(f"{name} of the lineage is no mapping")
        return cls(**{**fields, "data": data and DataSnapshot(**data)})


@dataclass(frozen=True, slots=True)
class Manifest:
    version: str
    model_name: str
    origin: str  # where the weights come from, for a person to read
    licence: str
    files: tuple[FileEntry, ...]
    published_at: str = ""  # ISO 8601, UTC
    lineage: Lineage = field(default_factory=Lineage)
    schema: int = SCHEMA

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files)

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold, and the same after a round trip. Raises `RegistryError` naming what it cannot hold."""
        try:
            text = json.dumps(asdict(self), allow_nan=False, ensure_ascii=False)
            text.encode()  # half characters are no text
            if "\\u0000" in text:
                raise ValueError("databases keep no NUL")
            return dict(json.loads(text))
        except (TypeError, ValueError) as error:
            raise RegistryError(
                f"The manifest would hold something that is no plain JSON: {error}."
            ) from error

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> "Manifest":
        """Raises `VersionCorrupt` for anything that is not a manifest of a schema this code knows."""
        try:
            fields = json.loads(text)
        except ValueError as error:
            raise VersionCorrupt(f"The manifest cannot be read: {error!r}.") from error
        return cls.from_dict(fields)

    @classmethod
    def from_dict(cls, fields: Any) -> "Manifest":
        """As `from_json`."""
        try:
            if fields["schema"] not in _READABLE_SCHEMAS:
                raise VersionCorrupt(
                    f"Manifest schema {fields['schema']!r} is unknown; this release reads up to {SCHEMA}."
                )
            for name in ("version", "model_name", "origin", "licence"):
                if not isinstance(fields[name], str):
                    raise TypeError(f"{name} is no text")
            files = tuple(FileEntry.from_dict(entry) for entry in fields["files"])
            lineage = Lineage.from_dict(fields.get("lineage", {}))
            return cls(**{**fields, "files": files, "lineage": lineage})
        except (KeyError, TypeError, AttributeError) as error:
            raise VersionCorrupt(f"The manifest cannot be read: {error!r}.") from error


def folder_entries(folder: Path, patterns: Sequence[str] = ("*",)) -> tuple[FileEntry, ...]:
    """The entries of the files below `folder` whose name matches one of `patterns`, in a stable order.

    Dotfiles and what an older publication left there are left out. Raises `RegistryError` for a file name that not
    every store and disk can keep.
    """
    entries = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        hidden = any(part.startswith(".") for part in name.split("/"))
        ours = name in {MANIFEST_NAME, CARD_NAME}
        if path.is_file() and not hidden and not ours and any(map(path.match, patterns)):
            if not file_name_is_safe(name):
                raise RegistryError(
                    f"{name!r} cannot be published: rename it without backslashes and control characters."
                )
            entries.append(FileEntry(name=name, size=path.stat().st_size, sha256=file_sha256(path)))
    return tuple(entries)


def content_sha256(entries: tuple[FileEntry, ...]) -> str:
    """One hash over the names and contents of all files."""
    listing = "".join(f"{entry.sha256}  {entry.name}\n" for entry in entries)
    return hashlib.sha256(listing.encode()).hexdigest()


def folder_verify(folder: Path, manifest: Manifest) -> None:
    """Raises `VersionCorrupt`, naming the file, unless every file is there with its published bytes."""
    for entry in manifest.files:
        path = folder / entry.name
        if not path.is_file():
            raise VersionCorrupt(f"Version {manifest.version}: {entry.name} is missing.")
        if path.stat().st_size != entry.size or file_sha256(path) != entry.sha256:
            raise VersionCorrupt(
                f"Version {manifest.version}: {entry.name} is not what was published (SHA-256 differs)."
            )


def file_name_is_safe(name: str) -> bool:
    """Whether `name` is a plain relative path: it stays in the folder it is put in, on every store and disk."""
    if any(part in {"", ".", ".."} for part in name.split("/")):  # an absolute one begins with an empty part
        return False
    return not any(char == "\\" or unicodedata.category(char) in {"Cc", "Cs"} for char in name)
