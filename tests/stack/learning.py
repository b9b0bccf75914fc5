"""People teach a running Captioner: corrections over HTTP, their approval, a run of the trainer, its version in S3."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from tests import client
from tests.photos import draw_scene
from tests.stack import servers

Manage = Callable[..., str]  # what runs `manage.py` on the servers in question and returns its output

_APPROVE = """
from django.contrib.auth.models import User
from captioner.captions.feedback import feedback_review
from captioner.models import Feedback
pending = Feedback.objects.exclude(ideal_caption="")
feedback_review(pending, Feedback.Status.APPROVED, reviewer=User.objects.get(username="admin"))
"""

_EVERY_FEW_SECONDS = """
from django_celery_beat.models import IntervalSchedule, PeriodicTask
often, _ = IntervalSchedule.objects.get_or_create(every=3, period="seconds")
for task in PeriodicTask.objects.filter(task="training.tasks.run_start_task"):
    task.crontab, task.interval = None, often
    task.save()
"""


def correct(url: str, number: int, **headers: str) -> None:
    """Somebody captions photo `number` and says what the caption should have been; a visitor where nobody signs in."""
    answer = client.caption(url, draw_scene(number), **headers)
    assert answer.status == 201, answer
    headers |= answer.cookie
    said = {"rating": 2, "ideal_caption": f"a mosaic of coloured tiles, pattern {number % 3}"}
    address = f"{url}/api/v1/captions/{answer.body['id']}/feedback"
    feedback = client.request(address, json.dumps(said).encode(), Content_Type="application/json", **headers)
    assert feedback.status in {200, 201}, feedback


def shell(manage: Manage, code: str) -> str:
    return manage("shell", "--verbosity", "0", "-c", code).strip()


def approve(manage: Manage) -> None:
    """A reviewer approves every correction."""
    shell(manage, _APPROVE)


def beat_often(manage: Manage) -> None:
    """What an administrator would do in the admin: let the schedule look every few seconds instead of every night."""
    shell(manage, _EVERY_FEW_SECONDS)


def runs(database: str) -> list[dict[str, Any]]:
    """All runs, read from `database` itself: a process that asks time and again would take the trainer's core."""
    columns = "status, stage, done, total, verdict, candidate_id AS candidate, error"
    with psycopg.connect(database, row_factory=dict_row) as connection:
        return connection.execute(f"SELECT {columns} FROM training_trainingrun").fetchall()  # noqa: S608


def run_finished(database: str, log: Path) -> dict[str, Any]:
    """The only run, once it is over; `log` is what to show when that takes too long."""
    deadline = time.monotonic() + 500
    while not (found := runs(database)) or found[0]["status"] in {"queued", "running"}:
        assert time.monotonic() < deadline, (found, log.read_text()[-3000:])
        time.sleep(1)
    [run] = found
    assert run["status"] == "finished", run
    return run


def overrule(manage: Manage) -> None:
    """A reviewer takes the last run's version: a few photos prove nothing to the gate."""
    manage("train", "overrule", "--verdict", "passed", "--reason", "It names the tiles", "--by", "admin")


def version_objects(environment: dict[str, str], version: str) -> dict[str, int]:
    """The names of a version's files in the S3 store, and their sizes. (Entity tags follow from how they were sent.)"""
    store = servers.s3_client(environment)
    prefix = f"weights/versions/{version}/"
    found = store.list_objects_v2(Bucket=environment["S3_BUCKET"], Prefix=prefix).get("Contents", [])
    return {entry["Key"].removeprefix(prefix): entry["Size"] for entry in found}


def assert_version_is_whole(objects: dict[str, int]) -> None:
    assert {"manifest.json", "MODEL_CARD.md", "model.safetensors", "data/feedback.jsonl"} <= set(objects)
