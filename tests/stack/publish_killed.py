"""Publishes and promotes versions in child processes that are killed around each of their steps; a script.

`publish_killed.py FOLDER` prints, as JSON per line, what a reader found after each kill. A step is a request to the S3
store, or, where the store is a folder, whatever makes a file's content or name durable.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import django

django.setup()

import botocore.client
from django.conf import settings
from django.db import connection

from models_registry import services
from models_registry.exceptions import VersionCorrupt
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


def publish(folder: Path) -> None:
    version = services.version_publish(folder, model_name="tiny", origin="a test", licence="Apache-2.0")
    services.version_promote(version, reason="better")


def in_child(work: Callable[[], None]) -> int:
    """Run `work` in a process of its own; returns its exit status, or minus the signal that killed it."""
    connection.close()
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            sys.stderr.write(f"{error!r}\n")
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def partial() -> list[str]:
    """The versions that a reader is shown and cannot have."""
    broken = []
    for version in ModelVersion.objects.all():
        try:
            services.version_fetch(version)
        except VersionCorrupt:
            broken.append(version.pk)
    return broken


def main(root: Path) -> None:
    step, champion = 0, None
    while True:
        step += 1
        for when in ("before", "after"):
            folder = root / f"{step}-{when}"
            folder.mkdir(parents=True)
            (folder / "model.safetensors").write_text(f"weights {step} {when}")
            (folder / "config.json").write_text("{}")

            def killed(when: str = when, folder: Path = folder) -> None:
                kill_at(step, when)
                publish(folder)

            status = in_child(killed)
            if status == 0:
                return
            report = {"step": step, "when": when, "status": status, "partial": partial()}
            report["champion_moved"] = champion != Alias.objects.values_list("version_id", flat=True).first()
            report["again"] = in_child(lambda folder=folder: publish(folder))
            report["champion_moved_then"] = champion != services.champion_get().pk
            champion = services.champion_get().pk
            sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
