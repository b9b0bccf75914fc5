"""From nothing to learning on real servers: people correct captions over HTTP, beat starts a run, it is served."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import client
from tests.photos import draw_scene
from tests.processes import wait_until
from tests.stack import learning, servers
from tests.stack.servers import Site

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


def test_from_nothing_to_a_learned_version_that_all_web_processes_serve(learning_site: Site) -> None:
    site = learning_site

    def served() -> set[str | None]:
        """Both processes answer in turn; more requests than that have seen both."""
        answers = [client.caption(site.url, draw_scene(100 + number)) for number in range(12)]
        return {a.body["model"]["version"] if a.status == 201 else None for a in answers}

    wait_until(lambda: None not in served(), "both web processes caption", seconds=120)
    [starter] = served()
    for number in range(PHOTOS):
        learning.correct(site.url, number)
    learning.approve(site.manage)
    database = site.environment["DATABASE_URL"]
    assert learning.runs(database) == [], "nobody has asked for a run"
    learning.beat_often(site.manage)
    run = learning.run_finished(database, site.log)
    assert run["verdict"] != "passed", "a few photos prove nothing, so a reviewer decides"
    assert served() == {starter}
    learning.overrule(site.manage)

    wait_until(lambda: served() == {run["candidate"]}, "all web processes serve the new version", seconds=60)
    learning.assert_version_is_whole(learning.version_objects(site.environment, run["candidate"]))
    caption = client.caption(site.url, draw_scene(500)).body["caption"]
    assert "tiles" in caption, "a photo nobody corrected"
