"""From nothing to learning on real servers: people correct captions over HTTP, beat starts a run, it is served."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from tests.stack import client, servers
from tests.stack.servers import Site
from tests.training.conftest import draw_scene

pytestmark = pytest.mark.stack
PHOTOS = 24


@pytest.fixture
def learning_site(tmp_path: Path) -> Iterator[Site]:
    """Captioner on PostgreSQL, Redis and S3 with two web processes, ready to learn from little."""
    with (
        servers.postgresql(tmp_path) as database,
        servers.redis(tmp_path) as redis,
        servers.s3(tmp_path) as s3,
        servers.captioner(
            tmp_path,
            DATABASE_URL=database,
            REDIS_URL=redis,
            WEB_WORKERS="2",
            TRAINING_MIN_NEW_FEEDBACK=str(PHOTOS // 2),
            **s3,
        ) as site,
    ):
        yield site


def correct(site: Site, number: int) -> None:
    """A visitor captions a photo and says what the caption should have been."""
    answer = client.caption(site.url, draw_scene(number))
    assert answer.status == 201, answer
    cookie = answer.headers["Set-Cookie"].split(";")[0]
    said = json.dumps(
        {"rating": 2, "ideal_caption": f"a mosaic of coloured tiles, pattern {number % 3}"}
    ).encode()
    url = f"{site.url}/api/v1/captions/{answer.body['id']}/feedback"
    feedback = client.request(url, said, Content_Type="application/json", Cookie=cookie)
    assert feedback.status in {200, 201}, feedback


def shell(site: Site, code: str) -> str:
    return site.manage("shell", "--verbosity", "0", "-c", code).strip()


APPROVE = """
from django.contrib.auth.models import User
from captioner import services
from captioner.models import Feedback
services.feedback_review(Feedback.objects.all(), Feedback.Status.APPROVED, reviewer=User.objects.get(username="admin"))
"""
EVERY_FEW_SECONDS = """
from django_celery_beat.models import IntervalSchedule, PeriodicTask
often, _ = IntervalSchedule.objects.get_or_create(every=3, period="seconds")
for task in PeriodicTask.objects.filter(task="training.tasks.run_start_task"):
    task.crontab, task.interval = None, often
    task.save()
"""
RUN = """
import json
from training.models import TrainingRun
print(json.dumps([run.facts for run in TrainingRun.objects.all()]))
"""


def runs(site: Site) -> list[dict]:
    return json.loads(shell(site, RUN).splitlines()[-1])


def test_from_nothing_to_a_learned_version_that_all_web_processes_serve(learning_site: Site) -> None:
    site = learning_site

    def served() -> set[str | None]:
        """Both processes answer in turn; more requests than that have seen both."""
        answers = [client.caption(site.url, draw_scene(100 + number)) for number in range(12)]
        return {a.body["model"]["version"] if a.status == 201 else None for a in answers}

    servers.wait_until(lambda: None not in served(), "both web processes caption", seconds=120)
    [starter] = served()
    for number in range(PHOTOS):
        correct(site, number)
    shell(site, APPROVE)
    assert runs(site) == [], "nobody has asked for a run"
    shell(site, EVERY_FEW_SECONDS)
    deadline = time.monotonic() + 400
    while not (found := runs(site)) or found[0]["status"] in {"queued", "running"}:
        assert time.monotonic() < deadline, (found, site.log.read_text()[-3000:])
        time.sleep(2)
    [run] = found
    assert run["status"] == "finished", run
    assert run["verdict"] != "passed", "a few photos prove nothing, so a reviewer decides"
    assert served() == {starter}
    site.manage("train", "overrule", "--verdict", "passed", "--reason", "It names the tiles", "--by", "admin")

    servers.wait_until(
        lambda: served() == {run["candidate"]}, "all web processes serve the new version", seconds=60
    )
    environment = site.environment
    store = boto3.client(
        "s3",
        endpoint_url=environment["S3_ENDPOINT_URL"],
        aws_access_key_id=environment["S3_ACCESS_KEY"],
        aws_secret_access_key=environment["S3_SECRET_KEY"],
        region_name="us-east-1",
    )
    prefix = f"weights/versions/{run['candidate']}/"
    keys = {entry["Key"] for entry in store.list_objects_v2(Bucket="captioner", Prefix=prefix)["Contents"]}
    assert {
        f"{prefix}{name}" for name in ("manifest.json", "model.safetensors", "data/feedback.jsonl")
    } <= keys
    caption = client.caption(site.url, draw_scene(500)).body["caption"]
    assert "tiles" in caption, "a photo nobody corrected"
