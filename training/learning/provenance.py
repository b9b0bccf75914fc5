"""What a version must say about how it was made: code revision, environment, decoding, digests."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from django.conf import settings

from models_registry.files import file_sha256

_LIBRARIES = ("torch", "transformers", "peft", "accelerate", "numpy", "Pillow")


def code_revision() -> str:
    """What CODE_REVISION says, else the commit of this checkout with a `+` if it was changed, else nothing."""
    if settings.CODE_REVISION:
        return str(settings.CODE_REVISION)
    folder = Path(__file__).resolve().parent
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return commit + ("+" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _git(folder: Path, *arguments: str) -> str:
    result = subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=30
    )
    return result.stdout.strip()


def environment() -> dict[str, Any]:
    """Versions of Python and of the libraries that compute, and the kind of machine."""
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        **{name: version(name) for name in _LIBRARIES},
    }


def decoding(folder: Path) -> dict[str, Any]:
    """The generation settings a checkpoint ships with."""
    path = folder / "generation_config.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def file_digest(path: Path) -> str:
    """SHA-256 of a file; empty where there is none."""
    return file_sha256(path) if path.exists() else ""


def text_digest(*texts: str) -> str:
    """A short digest of several texts in their order."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
