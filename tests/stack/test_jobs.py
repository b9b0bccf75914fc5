"""Batch jobs through real servers: spread over workers, and whole whatever dies meanwhile."""

import http.client
import json
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from tests import client
from tests.photos import draw_photo, zip_of
from tests.processes import BIN, ROOT, process, wait_until
from tests.stack import servers
from tests.stack.servers import Server, Site

pytestmark = pytest.mark.stack


def archive(count: int, start: int = 0) -> bytes:
    photos = {f"{number:04}.jpg": draw_photo(number) for number in range(start, start + count)}
    return zip_of(photos | {"notes.txt": b"no photo"})


@dataclass
class Caller:
    """Somebody with an API key."""

    site: Site
    key: str

    def send(self, photos: bytes) -> str:
        """Where to ask about the job that was made of these photos."""
        headers = {"Content_Type": "application/zip", "Authorization": f"Bearer {self.key}"}
        answer = client.request(f"{self.site.url}/api/v1/jobs", photos, **headers)
        assert answer.status == 202, answer
        return answer.body["links"]["self"]

    def job(self, address: str) -> dict:
        return client.request(address, Authorization=f"Bearer {self.key}").body

    def wait_finished(self, address: str, seconds: float = 120) -> dict:
        wait_until(lambda: self.job(address)["status"] == "finished", "the job is finished", seconds)
        return self.job(address)

    def results(self, address: str) -> list[dict]:
        answer = client.request(f"{address}/results?format=coco", Authorization=f"Bearer {self.key}")
        return answer.body


def caller(site: Site) -> Caller:
    site.manage(
        "shell",
        "-c",
        "from django.contrib.auth.models import User; User.objects.get_or_create(username='prog')",
    )
    return Caller(site, site.manage("api_key", "create", "prog", "stack").strip())


def test_a_job_on_one_machine_with_nothing_configured(site: Site) -> None:
    program = caller(site)
    address = program.send(archive(20))
    job = program.wait_finished(address)
    assert job["photos"] == {"total": 21, "captioned": 20, "failed": 1, "cancelled": 0, "pending": 0}
    results = program.results(address)
    assert [entry["image_id"] for entry in results] == list(range(20))
    assert all(entry["caption"] for entry in results)
    # The folder of a job goes with an hourly sweep; what was sent does at once.
    assert not [
        path for path in Path(site.environment["CAPTIONER_DATA_DIR"], "uploads").rglob("*") if path.is_file()
    ]
    assert "captioner_captions_total" in client.request(f"{site.url}/metrics").body.decode()


# --- On servers ---


@dataclass
class Cluster:
    site: Site
    redis: Server
    folder: Path

    def worker(self, name: str):
        """One more worker, as on another machine."""
        arguments = [
            BIN / "celery",
            "--app",
            "captioner.celery",
            "worker",
            "--concurrency",
            "1",
            "-n",
            f"{name}@%h",
        ]
        environment = self.site.environment | {
            "CAPTIONER_DATA_DIR": str(self.folder / name),
            "LOG_FORMAT": "json",
        }
        return process(arguments, self.folder / f"{name}.log", env=environment, cwd=ROOT)

    def log(self, name: str) -> list[dict]:
        lines = (self.folder / f"{name}.log").read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def rows(self, query: str) -> list[tuple]:
        with psycopg.connect(self.site.environment["DATABASE_URL"]) as database:
            return database.execute(query).fetchall()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Each test's own: they kill workers and Redis."""
    folder, redis = tmp_path, servers.redis_server(tmp_path)
    with (
        servers.postgresql(folder) as database,
        redis.running(),
        servers.s3(folder) as s3,
        servers.captioner(
            folder, DATABASE_URL=database, REDIS_URL=redis.url, CAPTION_TIMEOUT_SECONDS="5", **s3
        ) as site,
    ):
        yield Cluster(site, redis, folder)


def test_workers_share_a_job_and_one_that_is_killed_loses_nothing(cluster: Cluster) -> None:
    program = caller(cluster.site)
    with cluster.worker("second") as second:
        wait_until(lambda: bool(cluster.log("second")), "the second worker logs")
        # Enough for both; the second loads its model with its first photos.
        address = program.send(archive(160))
        seconds = "SELECT count(*) FROM captioner_jobphoto WHERE state = 'captioned'"
        serving = lambda: any("Serving" in line["message"] for line in cluster.log("second"))  # noqa: E731
        wait_until(serving, "the second worker has its model")
        before = cluster.rows(seconds)
        wait_until(lambda: cluster.rows(seconds) != before, "it goes on")
        second.signal_all(signal.SIGKILL)
        job = program.wait_finished(address, seconds=180)
    assert job["photos"] == {"total": 161, "captioned": 160, "failed": 1, "cancelled": 0, "pending": 0}
    assert cluster.rows("SELECT count(*), count(DISTINCT photo_id) FROM captioner_caption") == [(160, 160)]
    assert all("task_id" in line for line in cluster.log("second") if line["logger"].startswith("captioner."))


def test_a_worker_that_is_told_to_stop_ends_its_chunk_and_itself(cluster: Cluster) -> None:
    program = caller(cluster.site)
    with cluster.worker("third") as third:
        wait_until(lambda: bool(cluster.log("third")), "the third worker logs")
        address = program.send(archive(120, start=1000))
        serving = lambda: any("Serving" in line["message"] for line in cluster.log("third"))  # noqa: E731
        wait_until(serving, "the third worker has its model")
        assert third.stop(60) == 0
        job = program.wait_finished(address, seconds=180)
    assert job["photos"]["captioned"] == 120


def test_jobs_outlive_redis_and_all_that_it_held(cluster: Cluster) -> None:
    program = caller(cluster.site)
    cluster.redis.kill()
    address = program.send(archive(10))
    assert program.job(address)["status"] == "queued"
    assert client.caption(cluster.site.url, draw_photo(1)).status == 201, "captions do not need it"
    cluster.redis.start()
    assert program.wait_finished(address)["photos"]["captioned"] == 10

    addresses = [program.send(archive(30, start=1000 + 100 * n)) for n in range(3)]
    cluster.redis.kill()
    shutil.rmtree(cluster.folder / "appendonlydir")
    cluster.redis.start()
    for address in addresses:
        assert program.wait_finished(address, seconds=180)["photos"]["captioned"] == 30, "found missing"


# --- The same request twice ---


def test_a_request_repeated_at_once_makes_one_caption(site: Site) -> None:
    program = caller(site)
    headers = {"Authorization": f"Bearer {program.key}", "Idempotency_Key": "at once"}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.caption(site.url, draw_photo(7), **headers), range(8)))
    assert {answer.status for answer in answers} <= {201, 409}
    made = {answer.body["id"] for answer in answers if answer.status == 201}
    assert len(made) == 1
    assert client.caption(site.url, draw_photo(7), **headers).body["id"] in made


def test_a_request_whose_connection_was_cut_is_repeated_safely(site: Site) -> None:
    program = caller(site)
    headers = {
        "Authorization": f"Bearer {program.key}",
        "Idempotency-Key": "cut",
        "Content-Type": "image/jpeg",
    }
    for pause in (0, 0.02, 0.05, 0.1, 0.2):
        connection = http.client.HTTPConnection(urlsplit(site.url).netloc)
        connection.request("POST", "/api/v1/captions", draw_photo(8), headers)
        time.sleep(pause)
        connection.close()
    answer = None
    while answer is None or answer.status == 409:
        answer = client.caption(
            site.url, draw_photo(8), Authorization=headers["Authorization"], Idempotency_Key="cut"
        )
    assert answer.status == 201
    history = client.request(
        f"{site.url}/api/v1/captions?page_size=100", Authorization=headers["Authorization"]
    )
    same = [
        row for row in history.body["results"] if row["image"]["sha256"] == answer.body["image"]["sha256"]
    ]
    assert len(same) == 1
