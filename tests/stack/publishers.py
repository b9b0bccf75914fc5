"""Publishes versions in child processes that race each other, or are killed around each of their steps; a script.

`publishers.py race FOLDER` prints how eight publishers of one version ended. `publishers.py kill FOLDER` prints, as one
JSON object per line, what a reader found after each kill. A step is a request to the S3 store, or, where the store is a
folder, whatever makes a file's content or name durable.
"""

# ruff: noqa: E402  settings come before everything that reads them
import json
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import django

django.setup()

import botocore.client
from django.conf import settings
from django.db import connection

from models_registry import promotions, versions
from models_registry.exceptions import VersionCorrupt, VersionExists
from models_registry.models import Alias, ModelVersion

STEPS: list[tuple[Any, str]] = (
    [(botocore.client.BaseClient, "_make_api_call")]
    if settings.S3_BUCKET
    else [(os, "fsync"), (os, "link"), (os, "replace"), (os, "rename")]
)


def kill_at(step: int, when: str) -> None:
    """Have this process kill itself before or after its `step`-th step."""
    count = 0

    def counted(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            mine = count == step
            if mine and when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return original(*args, **kwargs)
            finally:
                if mine:
                    os.kill(os.getpid(), signal.SIGKILL)

        return call

    for owner, name in STEPS:
        setattr(owner, name, counted(getattr(owner, name)))


def make_folder(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_text(f"weights {folder.name}")
    (folder / "config.json").write_text("{}")
    return folder


def version_make(folder: Path) -> ModelVersion:
    return versions.version_publish(folder, model_name="tiny", origin="a test", licence="Apache-2.0")


def publish(folder: Path) -> None:
    promotions.version_promote(version_make(folder), reason="better")


def publish_killed(folder: Path, step: int, when: str) -> None:
    kill_at(step, when)
    version_make(folder)


def child_start(work: Callable[[], None]) -> int:
    connection.close()
    child = os.fork()
    if child:
        return child
    try:
        work()
    except VersionExists:
        os._exit(3)
    except BaseException as error:  # noqa: BLE001
        sys.stderr.write(f"{error!r}\n")
        os._exit(1)
    os._exit(0)


def child_end(child: int) -> int:
    """Its exit status, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def partial_versions() -> list[str]:
    """The versions that a reader is shown and cannot have."""
    broken = []
    for version in ModelVersion.objects.all():
        try:
            versions.version_fetch(version)
        except VersionCorrupt:
            broken.append(version.pk)
    return broken


def champion() -> str | None:
    return Alias.objects.values_list("version_id", flat=True).first()


def race(root: Path) -> None:
    folder = make_folder(root / "raced")
    children = [child_start(partial(publish, folder)) for _ in range(8)]
    statuses = [child_end(child) for child in children]
    print_line({"statuses": statuses, "partial": partial_versions(), "champion": champion()})


def kill(root: Path) -> None:
    step = 0
    while True:
        step += 1
        for when in ("before", "after"):
            folder, standing = make_folder(root / f"{step}-{when}"), champion()
            status = child_end(child_start(partial(publish_killed, folder, step, when)))
            if status == 0:  # it has fewer steps
                return
            report = {"step": step, "when": when, "status": status, "partial": partial_versions()}
            report["champion_moved"] = champion() != standing
            report["again"] = child_end(child_start(partial(publish, folder)))
            report["champion_moved_then"] = champion() != standing
            print_line(report)


def print_line(report: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(report) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    {"race": race, "kill": kill}[sys.argv[1]](Path(sys.argv[2]))
