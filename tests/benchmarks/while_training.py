"""How long a caption takes while a training run goes on the same machine: `python -m tests.benchmarks.while_training`.

Runs Captioner as `make run` does, has visitors correct drawn photos, and asks one client after the other for captions,
first without a run, then for as long as a run takes.
"""

import argparse
import itertools
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks.experiments.domains import drawn_photos
from tests.benchmarks.experiments.drawn import draw_everyday
from tests.benchmarks.rehearsal import World, approve, runs, say, visitors_come
from tests.client import Load
from tests.photos import jpeg_bytes
from tests.processes import wait_until
from tests.stack import servers
from tests.stack.servers import Site


def main(seconds: float, clients: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = {"TRAINING_PROMOTE_TO": "nothing", "CAPTION_MAX_WAIT_SECONDS": "60"}
        with servers.captioner(folder, wait=False, **settings) as site:
            wait_until(lambda: site.status().get("state") == "ready", "it serves", seconds=600)
            visitors_come(site, World(drawn_photos(100)))
            approve(site)
            deadline = time.monotonic() + seconds
            alone = times(site, clients, lambda: time.monotonic() > deadline)
            site.manage("train", "now")
            busy = times(site, clients, RunWatch(site))
            say(site.manage("train", "status"))
    p50 = {name: statistics.median(found) for name, found in (("alone", alone), ("training", busy))}
    for name, found in (("alone", alone), ("training", busy)):
        p95 = statistics.quantiles(found, n=20)[18]
        say(f"{name:<9} {len(found):4} captions, p50 {1000 * p50[name]:4.0f} ms, p95 {1000 * p95:4.0f} ms")
    say(f"p50 while training: {p50['training'] / p50['alone']:.2f}x")


class RunWatch:
    """Says, when asked, whether the run has ended; a thread of its own looks, for looking takes seconds."""

    def __init__(self, site: Site) -> None:
        self._ended = False
        self._site = site
        wait_until(lambda: runs(site)[0]["status"] == "running", "the run starts", seconds=120)
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while not self._ended:
            time.sleep(15)  # a look starts a process, which is itself a load
            self._ended = runs(self._site)[0]["status"] != "running"

    def __call__(self) -> bool:
        return self._ended


def times(site: Site, clients: int, ended: Callable[[], bool]) -> list[float]:
    """Seconds of each caption until `ended` says so."""
    generator = random.Random(time.monotonic())
    photos = (jpeg_bytes(draw_everyday(generator)[0], quality=95) for _ in itertools.count())
    with Load(site.url, clients, photos=photos) as load:
        while not ended():
            time.sleep(0.1)
    assert set(load.statuses()) == {201}, load.statuses()
    return [answer.seconds for answer in load.answers]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=20, help="how long to measure without a run")
    parser.add_argument("--clients", type=int, default=1)
    options = parser.parse_args()
    main(options.seconds, options.clients)
