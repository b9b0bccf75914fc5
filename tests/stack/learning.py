"""People teach a running Captioner: corrections over HTTP, their approval, a run of the trainer, its version in S3."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import boto3

from tests.stack import client
from tests.training.conftest import draw_scene

Manage = Callable[..., str]  # what runs `manage.py` on the servers in question and returns its output

_APPROVE = """
from django.contrib.auth.models import User
from captioner import services
from captioner.models import Feedback
pending = Feedback.objects.exclude(ideal_caption="")
services.feedback_review(pending, Feedback.Status.APPROVED, reviewer=User.objects.get(username="admin"))
"""
_RUNS = """
import json
from training.models import TrainingRun
print(json.dumps([run.facts for run in TrainingRun.objects.all()]))
"""


def correct(url: str, number: int, **headers: str) -> None:
    """Somebody captions photo `number` and says what the caption should have been; a visitor where nobody signs in."""
    answer = client.caption(url, draw_scene(number), **headers)
    assert answer.status == 201, answer
    if "Set-Cookie" in answer.headers:
        headers["Cookie"] = answer.headers["Set-Cookie"].split(";")[0]
    said = {"rating": 2, "ideal_caption": f"a mosaic of coloured tiles, pattern {number % 3}"}
    address = f"{url}/api/v1/captions/{answer.body['id']}/feedback"
    feedback = client.request(address, json.dumps(said).encode(), Content_Type="application/json", **headers)
    assert feedback.status in {200, 201}, feedback


def shell(manage: Manage, code: str) -> str:
    return manage("shell", "--verbosity", "0", "-c", code).strip()


def approve(manage: Manage) -> None:
    """A reviewer approves every correction."""
    shell(manage, _APPROVE)


def runs(manage: Manage) -> list[dict[str, Any]]:
    return json.loads(shell(manage, _RUNS).splitlines()[-1])


def run_finished(manage: Manage, seconds: float, log: Callable[[], str]) -> dict[str, Any]:
    """The only run, once it is over; `log` is what to show when that takes more than `seconds`."""
    deadline = time.monotonic() + seconds
    while not (found := runs(manage)) or found[0]["status"] in {"queued", "running"}:
        assert time.monotonic() < deadline, (found, log()[-3000:])
        time.sleep(2)
    [run] = found
    assert run["status"] == "finished", run
    return run


def overrule(manage: Manage) -> None:
    """A reviewer takes the last run's version: a few photos prove nothing to the gate."""
    manage("train", "overrule", "--verdict", "passed", "--reason", "It names the tiles", "--by", "admin")


def version_objects(environment: dict[str, str], version: str) -> dict[str, str]:
    """The files of a version in the S3 store, by their names in it, with their entity tags."""
    store = boto3.client(
        "s3",
        endpoint_url=environment["S3_ENDPOINT_URL"],
        aws_access_key_id=environment["S3_ACCESS_KEY"],
        aws_secret_access_key=environment["S3_SECRET_KEY"],
        region_name="us-east-1",
    )
    prefix = f"weights/versions/{version}/"
    found = store.list_objects_v2(Bucket=environment["S3_BUCKET"], Prefix=prefix).get("Contents", [])
    return {entry["Key"].removeprefix(prefix): entry["ETag"] for entry in found}


def assert_version_is_whole(objects: dict[str, str]) -> None:
    assert {"manifest.json", "MODEL_CARD.md", "model.safetensors", "data/feedback.jsonl"} <= set(objects)
