"""The main job through real processes: gunicorn, worker and beat under the supervisor, on real weights."""

import os
import re
import signal
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from tests import client, corpus
from tests.photos import draw_photo
from tests.processes import wait_until
from tests.stack import servers
from tests.stack.servers import Site

pytestmark = pytest.mark.stack


def test_a_photo_goes_in_and_a_caption_comes_out_logged_and_rated(site: Site) -> None:
    answer = client.caption_multipart(site.url, draw_photo(1))
    assert answer.status == 201
    assert re.fullmatch(r"[a-z].+ .+", answer.body["caption"]), "words, not nothing"
    assert all(0 < word["probability"] <= 1 for word in answer.body["words"])
    assert answer.body["model"]["version"].startswith("captioner-starter-")
    feedback = client.request(
        answer.body["links"]["feedback"],
        b'{"rating": 7, "ideal_caption": "an orange egg"}',
        Content_Type="application/json",
        **answer.cookie,
    )
    assert feedback.status == 201
    detail = client.request(answer.body["links"]["self"], **answer.cookie)
    assert detail.body["feedback"]["ideal_caption"] == "an orange egg"
    assert client.request(answer.body["links"]["self"]).status == 404, "nobody else sees it"


def test_the_first_start_shows_how_to_sign_in(site: Site) -> None:
    assert f"{site.url}/" in site.setup_output
    assert re.search(r"admin / \S{16}", site.setup_output)
    assert "admin /" not in site.manage("setup"), "the password is shown once"


def test_readiness_says_what_serves_and_liveness_does_not_need_the_model(site: Site) -> None:
    status = site.status()
    assert status["model"]["version"].startswith("captioner-starter-")
    assert client.request(f"{site.url}/healthz").body == {"status": "alive"}


def test_a_killed_web_worker_loses_no_answered_caption_and_comes_back(tmp_path: Path) -> None:
    with servers.captioner(tmp_path) as site, client.Load(site.url, clients=4) as load:
        wait_until(lambda: len(load.answered()) > 20, "captions under load")
        victim = site.status()["pid"]
        os.kill(victim, signal.SIGKILL)
        before = len(load.answered())
        wait_until(lambda: site.status().get("state") == "ready", "ready again", seconds=120)
        wait_until(lambda: len(load.answered()) > before + 20, "captions after the kill")
        assert site.status()["pid"] != victim
    assert load.answered() <= logged_ids_sqlite(site)


def logged_ids_sqlite(site: Site) -> set[str]:
    with sqlite3.connect(Path(site.environment["CAPTIONER_DATA_DIR"]) / "captioner.sqlite3") as database:
        rows = database.execute("SELECT id FROM captioner_caption").fetchall()
    return {f"{i[:8]}-{i[8:12]}-{i[12:16]}-{i[16:20]}-{i[20:]}" for (i,) in rows}


def test_one_term_stops_everything_and_loses_nothing(tmp_path: Path) -> None:
    with servers.captioner(tmp_path) as site, client.Load(site.url, clients=4) as load:
        wait_until(lambda: len(load.answered()) > 20, "captions under load")
        children = child_pids(site.process.pid)
        assert len(children) >= 3
        site.process.stop(60)
        load.stop()
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]
    assert {answer.status for answer in load.answers} == {201}
    assert load.answered() == logged_ids_sqlite(site), (
        "all that was captioned was answered, and the other way round"
    )
    # Clients that came after the stop were refused, or reset before the server had accepted them.
    assert not [error for error in load.broken if not re.search("Connection (refused|reset)", error)]


def child_pids(pid: int) -> list[int]:
    listing = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in listing.split()]


def test_the_same_on_postgresql_redis_and_s3(production_site: Site) -> None:
    site = production_site
    with client.Load(site.url, clients=4) as load:
        wait_until(lambda: len(load.answered()) > 20, "captions under load")
    assert {answer.status for answer in load.answers} == {201}
    with psycopg.connect(site.environment["DATABASE_URL"]) as database:
        logged = {str(row[0]) for row in database.execute("SELECT id FROM captioner_caption")}
    assert load.answered() <= logged
    assert not list(Path(site.environment["CAPTIONER_DATA_DIR"]).glob("**/*.jpg")), "photos are in S3 alone"
    answer = client.caption(site.url, draw_photo(1))
    photo = client.request(answer.body["links"]["photo"], **answer.cookie)
    assert photo.body.startswith(b"\xff\xd8")


@pytest.mark.parametrize("which", ["site", "production_site"])
def test_background_work_reaches_the_worker(which: str, request: pytest.FixtureRequest) -> None:
    site: Site = request.getfixturevalue(which)
    site.manage(
        "shell", "-c", "from captioner.celery import app; app.send_task('captioner.tasks.photos_sweep_task')"
    )
    wait_until(lambda: "no caption shows any more" in site.log.read_text(), "the worker ran the task")


def test_connections_to_postgresql_stay_few_while_many_wait(production_site: Site) -> None:
    with client.Load(production_site.url, clients=24) as load:
        wait_until(lambda: len(load.answered()) > 60, "captions under load")
        with psycopg.connect(production_site.environment["DATABASE_URL"]) as database:
            (count,) = database.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname='postgres'"
            ).fetchone()
    assert count < 30


# --- Hostile and odd photos through the real server ---


def memory(pid: int, what: str) -> int:
    """A line of a process's memory figures, such as VmRSS (now) or VmHWM (most ever), in bytes."""
    (kilobytes,) = re.findall(rf"^{what}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(kilobytes) * 1024


def test_broken_photos_are_refused_with_a_reason_and_cost_little_memory(site: Site) -> None:
    pid = site.status()["pid"]
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # VmHWM starts anew
    rest = memory(pid, "VmRSS")
    photos = [build() for build in corpus.BROKEN.values()]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda photo: client.caption_multipart(site.url, photo), photos))
    for name, answer in zip(corpus.BROKEN, answers, strict=True):
        assert answer.status in {400, 413, 415, 422}, (name, answer)
        assert answer.headers["Content-Type"] == "application/problem+json", name
        assert answer.body["detail"], name
    assert site.status()["pid"] == pid, "no worker died"
    assert memory(pid, "VmHWM") - rest < 600 * 2**20


@pytest.mark.parametrize("name", corpus.ODD)
def test_odd_but_honest_photos_are_captioned(site: Site, name: str) -> None:
    answer = client.caption_multipart(site.url, corpus.ODD[name]())
    assert answer.status == 201, answer
    assert answer.body["caption"]


@pytest.mark.parametrize("seconds", [2, 4, 8])
def test_a_stop_while_the_model_loads_is_clean(tmp_path: Path, seconds: float) -> None:
    with servers.captioner(tmp_path, wait=False) as site:
        time.sleep(seconds)  # somewhere between start and ready, wherever this machine is by then
        site.process.stop(25)
    assert "terminate called" not in site.log.read_text()
    assert "SIGKILL" not in site.log.read_text()
    assert "SIGABRT" not in site.log.read_text()
