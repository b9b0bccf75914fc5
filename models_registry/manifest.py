"""The manifest: what a version consists of, and how to tell that its bytes are the published ones."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from models_registry.exceptions import VersionCorrupt

SCHEMA = 1
MANIFEST_NAME = "manifest.json"


@dataclass(frozen=True, slots=True)
class FileEntry:
    name: str  # relative to the version's folder, with forward slashes
    size: int  # bytes
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    version: str
    model_name: str
    origin: str  # where the weights come from, for a person to read
    licence: str
    files: tuple[FileEntry, ...]
    schema: int = SCHEMA

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> "Manifest":
        """Raises `VersionCorrupt` for anything that is not a manifest of a schema this code knows."""
        try:
            return cls.from_dict(json.loads(text))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise VersionCorrupt(f"The manifest cannot be read: {error!r}.") from error

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Manifest":
        if fields["schema"] != SCHEMA:
            raise VersionCorrupt(
                f"Manifest schema {fields['schema']!r} is unknown; this release reads {SCHEMA}."
            )
        files = tuple(FileEntry(**entry) for entry in fields["files"])
        return cls(**{**fields, "files": files})


def folder_entries(folder: Path, patterns: Sequence[str] = ("*",)) -> tuple[FileEntry, ...]:
    """The entries of the files below `folder` whose name matches one of `patterns`, in a stable order.

    Dotfiles and an older manifest are left out.
    """
    entries = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        hidden = any(part.startswith(".") for part in name.split("/"))
        if path.is_file() and not hidden and name != MANIFEST_NAME and any(map(path.match, patterns)):
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


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
