"""From nothing to learning, on real servers: `python -m tests.benchmarks.rehearsal [--data DATA]`, or `make rehearsal`.

Starts PostgreSQL, Redis, an S3 server and Captioner with two web processes. Simulated people caption photos of a new
domain over HTTP, rate the captions and correct them; a reviewer approves in the admin; beat starts the run; the gate
decides; the new version is served. Prints what photos nobody corrected were called before and after.

DATA is a folder with flickr8k/ and labelled/ (see the starter's model card). Without it, everything is drawn, the gate
has no photos to see on what was forgotten, and a reviewer takes the version. Variables TRAINING_... are handed on: on a
machine that is busy otherwise, TRAINING_NICENESS=0 lets the run come to an end.
"""

import argparse
import json
import os
import random
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from tests import client
from tests.benchmarks.experiments.domains import DomainPhoto, catalogue_photos, drawn_photos
from tests.benchmarks.experiments.drawn import draw_everyday
from tests.benchmarks.experiments.people import PEOPLE
from tests.photos import jpeg_bytes
from tests.processes import BIN, ROOT, process, wait_until
from tests.stack import learning, servers
from tests.stack.servers import Site
from training.judging.scores import captions_score

UNSEEN = 40
ENOUGH_TO_JUDGE = 1000  # corrections: a fifth of them judge, and 200 must
SHOWN = 12
PHOTOS_PER_VISITOR = 5
CONTENT_VISITORS = 60
WEB_PROCESSES = 2
CLIENTS = 4


@dataclass
class World:
    """The photos there are: of the new domain, of which the first `UNSEEN` are never corrected; and everyday ones."""

    domain: list[DomainPhoto]
    everyday: list[Image.Image] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def unseen(self) -> list[DomainPhoto]:
        return self.domain[:UNSEEN]

    @property
    def corrected(self) -> list[DomainPhoto]:
        return self.domain[UNSEEN:]


def real_world(data: Path, folder: Path, corrections: int) -> World:
    """The catalogue's photos; Flickr8k's are the original test photos and what is replayed."""
    settings = {
        "TRAINING_ORIGINAL_PHOTOS": str(data / "flickr8k/val.tar"),
        "TRAINING_REPLAY_PHOTOS": str(data / "flickr8k/train.tar"),
    }
    return World(catalogue_photos(data, folder, UNSEEN + corrections), settings=settings)


def drawn_world(corrections: int) -> World:
    """Drawn things, and drawn people that visitors are content with; there are no original test photos."""
    generator = random.Random(1)
    everyday = [draw_everyday(generator)[0] for _ in range(CONTENT_VISITORS * PHOTOS_PER_VISITOR)]
    return World(drawn_photos(UNSEEN + corrections), everyday)


def main(data: Path | None, corrections: int) -> None:
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="captioner-rehearsal-") as name:
        folder = Path(name)
        world = real_world(data, folder, corrections) if data else drawn_world(corrections)
        with (
            servers.postgresql(folder) as database,
            servers.redis(folder) as redis,
            servers.s3(folder) as s3,
            servers.captioner(
                folder,
                wait=False,
                DATABASE_URL=database,
                REDIS_URL=redis,
                WEB_WORKERS=str(WEB_PROCESSES),
                CAPTION_MAX_WAIT_SECONDS="60",
                TRAINING_MIN_NEW_FEEDBACK=str(corrections),
                **{name: value for name, value in os.environ.items() if name.startswith("TRAINING_")},
                **world.settings,
                **s3,
            ) as site,
        ):
            try:
                rehearse(site, world)
            except BaseException:
                shutil.copy(site.log, Path(tempfile.gettempdir(), "captioner-rehearsal.log"))
                raise
    say(f"All of it took {(time.monotonic() - started) / 60:.0f} minutes.")


def rehearse(site: Site, world: World) -> None:
    """Raises `AssertionError` where anything does not come out as it should."""
    wait_until(lambda: everything_served(site) != "", "both web processes serve", seconds=600)
    base, before = everything_served(site), captions(site, world.unseen)
    say(f"{WEB_PROCESSES} web processes serve {base}.")
    visitors_come(site, world)
    approve(site)
    assert not runs(site), "nobody has asked for a run"
    learning.beat_often(site.manage)
    with second_beat(site):
        run = run_wait(site)
        time.sleep(10)  # in which both could have started another one
    assert len(runs(site)) == 1, runs(site)
    say("Two beats looked every three seconds and started one run.")
    say(site.manage("train", "show"))
    if run["verdict"] != "passed":
        assert not world.settings, "only what could not be measured is for a reviewer to judge"
        if len(world.corrected) >= ENOUGH_TO_JUDGE:
            assert run["open"] == ["original"]
        assert everything_served(site) == base
        learning.overrule(site.manage)
        say("Whether it forgot anything, no photo can tell. A reviewer takes it.")
        run = runs(site)[0]
    assert "passed" in (run["verdict"], run["overruled"]), run
    assert run["promoted_to"] == "champion", run
    wait_until(lambda: everything_served(site) == run["candidate"], "all web processes serve it", seconds=300)
    stored = learning.version_objects(site.environment, run["candidate"])
    learning.assert_version_is_whole(stored)
    say(f"All web processes serve {run['candidate']}; in S3: {', '.join(sorted(stored))}.")
    table(world.unseen, before, captions(site, world.unseen))


# --- People -------------------------------------------------------------------------------------------------------


def visitors_come(site: Site, world: World) -> None:
    """Visitors with a few photos each: some correct what they are told of a new domain, others are content."""
    groups: list[tuple[int, Sequence[DomainPhoto | Image.Image]]] = []
    for photos in (world.corrected, world.everyday):
        for start in range(0, len(photos), PHOTOS_PER_VISITOR):
            groups.append((len(groups), photos[start : start + PHOTOS_PER_VISITOR]))
    random.Random(0).shuffle(groups)
    started = time.monotonic()
    with ThreadPoolExecutor(CLIENTS) as pool:
        for number, _ in enumerate(pool.map(lambda group: visit(site, *group), groups), start=1):
            if number % 50 == 0 or number == len(groups):
                say(f"{number} of {len(groups)} visitors came, {time.monotonic() - started:.0f} s")


def visit(site: Site, number: int, photos: Sequence[DomainPhoto | Image.Image]) -> None:
    """One visitor captions photos, one after the other, and says something about each caption."""
    generator, cookie = random.Random(number), {}
    for photo in photos:
        image = photo.image if isinstance(photo, DomainPhoto) else photo
        answer = client.caption(site.url, jpeg_bytes(image, quality=95), **cookie)
        assert answer.status == 201, answer
        cookie = cookie or answer.cookie
        said: dict[str, object] = {"rating": generator.randint(7, 9)}
        if isinstance(photo, DomainPhoto):
            person = number % PEOPLE
            said = {"rating": generator.randint(1, 4), "ideal_caption": photo.said_by(person, generator)}
        url = f"{site.url}/api/v1/captions/{answer.body['id']}/feedback"
        told = client.request(url, json.dumps(said).encode(), Content_Type="application/json", **cookie)
        assert told.status in {200, 201}, told


def approve(site: Site) -> None:
    """A reviewer signs in to the admin and approves all feedback that waits."""
    password = re.search(r"admin / (\S+)", site.setup_output)
    assert password, site.setup_output
    browser = client.Browser(site.url)
    browser.post("/login", username="admin", password=password[1])
    queue = "/admin/captioner/feedback/?status__exact=pending"
    page = browser.get(queue)
    first = re.search(r'name="_selected_action" value="(\d+)"', page)
    seen = re.search(r'name="seen" value="([^"]+)"', page)
    assert first, "nothing to approve"
    assert seen, "no moment at which the list was shown"
    answer = browser.post(
        queue, action="approve", select_across="1", index="0", _selected_action=first[1], seen=seen[1]
    )
    told = re.search(r"Approved: \d+", answer)
    assert told, answer[-2000:]
    say(f"The reviewer: {told[0]}.")


# --- The service --------------------------------------------------------------------------------------------------


def captions(site: Site, photos: Sequence[DomainPhoto]) -> list[str]:
    """What the service says of photos nobody ever gives feedback on. Deleted at once: they leave no trace."""
    texts = []
    for photo in photos:
        answer = client.caption(site.url, jpeg_bytes(photo.image, quality=95))
        assert answer.status == 201, answer
        texts.append(answer.body["caption"])
        url = f"{site.url}/api/v1/captions/{answer.body['id']}"
        assert client.request(url, method="DELETE", **answer.cookie).status == 204
    return texts


SERVED = """
import json
from models_registry.models import ServingProcess
print(json.dumps([process.champion for process in ServingProcess.objects.filter(state="ready")]))
"""
RUNS = """
import json
from training.models import TrainingRun
print(json.dumps([
    run.facts
    | {"overruled": run.overruled_to}
    | {"open": [each["question"] for each in run.report.get("checks", ()) if each["passed"] is None]}
    for run in TrainingRun.objects.all()
]))
"""


def everything_served(site: Site) -> str:
    """The version that every web process says it serves, and answers with; empty while they differ."""
    if site.status().get("state") != "ready":
        return ""
    said = json.loads(learning.shell(site.manage, SERVED).splitlines()[-1])
    generator = random.Random(str(said))
    answers = [
        client.caption(site.url, jpeg_bytes(draw_everyday(generator)[0], quality=95))
        for _ in range(6 * WEB_PROCESSES)
    ]
    if any(answer.status != 201 for answer in answers):
        return ""
    for answer in answers:
        client.request(f"{site.url}/api/v1/captions/{answer.body['id']}", method="DELETE", **answer.cookie)
    versions = {*said, *(answer.body["model"]["version"] for answer in answers)}
    return versions.pop() if len(said) == WEB_PROCESSES and len(versions) == 1 else ""


def second_beat(site: Site) -> AbstractContextManager[object]:
    """Another beat beside the service's own, as after a careless deployment."""
    arguments = [BIN / "celery", "--app", "captioner.celery", "beat", "--pidfile="]
    return process(arguments, site.log, env=site.environment, cwd=ROOT)


def runs(site: Site) -> list[dict]:
    return json.loads(learning.shell(site.manage, RUNS).splitlines()[-1])


def run_wait(site: Site, seconds: float = 3600) -> dict:
    """The run that beat has started, once it has come to an end."""
    deadline, shown = time.monotonic() + seconds, ""
    while time.monotonic() < deadline:
        for run in runs(site):
            if run["status"] not in {"queued", "running"}:
                assert run["status"] == "finished", run
                assert not run["overruled"], run
                return run
            if (stage := run["stage"].rsplit(" ", 1)[0]) != shown:
                shown = stage
                say(f"Run {run['run']}: {stage or 'waits for the trainer'}")
        time.sleep(5)
    raise AssertionError(f"no end within {seconds:.0f} s: {runs(site)}")


# --- What came of it ----------------------------------------------------------------------------------------------


def table(photos: Sequence[DomainPhoto], before: list[str], after: list[str]) -> None:
    """Captions of unseen photos before and after, and CIDEr-D against what three people would say of each."""
    generator = random.Random(2)
    people = [[photo.said_by(person, generator) for person in (0, 1, 2)] for photo in photos]
    old, new = (captions_score(texts, people).cider_d_each for texts in (before, after))
    say(f"\n{'photo':<18} {'before':<58} {'after':<48} CIDEr-D")
    for photo, first, second, low, high in list(zip(photos, before, after, old, new, strict=True))[:SHOWN]:
        say(f"{photo.kind[:18]:<18} {first[:58]:<58} {second[:48]:<48} {low:5.1f} -> {high:5.1f}")
    gain = statistics.fmean(new) - statistics.fmean(old)
    say(
        f"Mean of {len(photos)} photos that nobody corrected: {statistics.fmean(old):.1f} -> "
        f"{statistics.fmean(new):.1f} ({gain:+.1f})"
    )
    assert gain > 0, "captions of unseen photos did not get better"


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    os.environ["CI"] = "true"  # a server that is missing is an error
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="photo sets; drawn pictures without it")
    parser.add_argument("--corrections", type=int, default=1200, help="a fifth of them judge; 200 must")
    options = parser.parse_args()
    main(options.data, options.corrections)
