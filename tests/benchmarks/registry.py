"""Figures of the registry's promises, measured on a real web process; a script.

    python -m tests.benchmarks.registry swap      10 swaps under load: failures, p50, p99, memory
    python -m tests.benchmarks.registry rollback  from the command to the first caption of the version before
    python -m tests.benchmarks.registry canary    the share of 2,000 photos that a challenger answers
    python -m tests.benchmarks.registry shadow    what a challenger in the shadow costs the median
    python -m tests.benchmarks.registry breach    how long a challenger that fails, or is slow, is tried

`--model starter` serves copies of the bundled weights, `--model tiny` small random ones.
"""

# ruff: noqa: E402  settings come before everything that reads them
import argparse
import contextlib
import itertools
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.client import Load
from tests.photos import draw_photo
from tests.processes import BIN, ROOT, free_port, process, wait_until
from tests.stack import servers

SCRATCH = tempfile.TemporaryDirectory(prefix="captioner-registry-")
FOLDER = Path(SCRATCH.name)
os.environ |= {
    "CAPTIONER_DATA_DIR": str(FOLDER / "var"),
    "DJANGO_SETTINGS_MODULE": "captioner.settings",
    "LOG_LEVEL": "WARNING",
    "CAPTION_MAX_WAIT_SECONDS": "20",
}

import django

django.setup()

from django.core.management import call_command

from captioner.models import Caption, ChallengerTrial
from models_registry import bundled, promotions
from models_registry.models import Alias, ModelVersion, Promotion
from models_registry.versions import version_publish
from tests.captioner.inference.checkpoints import SAVERS


def make_versions(model: str, count: int) -> list[ModelVersion]:
    base = bundled.STARTER_DIR
    if model != "starter":
        base = FOLDER / "tiny"
        SAVERS["vit_gpt2"](base)
    made = []
    for number in range(count):
        folder = FOLDER / f"version-{number}"
        shutil.copytree(base, folder)
        (folder / "number.txt").write_text(str(number))
        made.append(version_publish(folder, model_name=f"v{number}", origin="a benchmark", licence="none"))
    return made


@dataclass
class Web:
    url: str

    def status(self) -> dict:
        return servers.status(self.url)

    def wait(self, version: str, alias: str = "model") -> float:
        """Seconds until the process says that the version serves: its follower looked, and its loader loaded."""
        started = time.monotonic()
        wait_until(lambda: (self.status().get(alias) or {}).get("version") == version, version, seconds=180)
        return time.monotonic() - started

    def memory_mb(self) -> float:
        lines = Path(f"/proc/{self.status()['pid']}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1000 for line in lines if line.startswith("VmRSS"))

    def load(self, clients: int, photos: int | None = None, pause: float = 0.0) -> Load:
        """Clients that send photos never sent before, over connections they keep."""
        # What follows the end of a JPEG is ignored, and makes it another file.
        some = [draw_photo(number) for number in range(8)]
        drawn = (some[n % 8] + n.to_bytes(8, "big") for n in itertools.islice(itertools.count(), photos))
        return Load(self.url, clients, keep_alive=True, photos=drawn, pause=pause)


def line(load: Load) -> str:
    times = sorted(answer.seconds for answer in load.answers)
    figures = f"p50 {statistics.median(times) * 1000:.1f} ms, p99 {percentile(load, 0.99) * 1000:.1f} ms"
    broken = f", broken: {dict(Counter(load.broken))}" if load.broken else ""
    return f"{len(times)} requests, {figures}, slowest {times[-1] * 1000:.0f} ms, {dict(load.statuses())}{broken}"


def percentile(load: Load, share: float) -> float:
    return sorted(answer.seconds for answer in load.answers)[int(len(load.answers) * share)]


@contextlib.contextmanager
def web(configuration: Path = ROOT / "deploy" / "gunicorn.conf.py") -> Iterator[Web]:
    port = free_port()
    command = [BIN / "gunicorn", "--config", configuration]
    environment = {**os.environ, "PORT": str(port)}
    with process(command, FOLDER / "web.log", env=environment, cwd=ROOT):
        site = Web(f"http://127.0.0.1:{port}")
        wait_until(lambda: site.status().get("state") == "ready", "ready", seconds=120)
        yield site


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def swap(model: str, clients: int, seconds: float) -> None:
    versions = make_versions(model, 12)
    promotions.version_promote(versions[0], reason="first")
    with web() as site, site.load(clients) as load:
        time.sleep(5)
        # The version before is kept from the first swap on: that is part of what serving costs.
        promotions.version_promote(versions[1], reason="before the measurement")
        site.wait(versions[1].pk)
        time.sleep(5)
        load.answers.clear()
        memory, started = site.memory_mb(), time.monotonic()
        time.sleep(seconds)
        steady = line(load)
        steady_p99, rate = percentile(load, 0.99), len(load.answers) / (time.monotonic() - started)
        say(f"steady:    {steady}; {rate:.0f} requests/s, {memory:.0f} MB")
        load.answers.clear()
        began = time.monotonic()
        taken = []
        for version in versions[2:]:
            promotions.version_promote(version, reason="swap")
            taken.append(site.wait(version.pk))
            time.sleep(max(0.0, began + seconds / 10 * len(taken) - time.monotonic()))
        say(f"10 swaps:  {line(load)} in {time.monotonic() - began:.0f} s")
        say(f"p99 ratio {percentile(load, 0.99) / steady_p99:.2f}; a swap takes at most {max(taken):.1f} s")
        time.sleep(2)
        after = site.memory_mb()
        say(f"memory {memory:.0f} -> {after:.0f} MB, ratio {after / memory:.3f}")


def rollback(model: str, clients: int, seconds: float) -> None:
    first, second = make_versions(model, 2)
    promotions.version_promote(first, reason="first")
    with web() as site, site.load(clients) as load:
        promotions.version_promote(second, reason="second")
        site.wait(second.pk)
        taken = []
        for target in (first, second) * 5:
            time.sleep(1 + random.random())
            load.answers.clear()
            started = time.monotonic()
            if target == first:
                promotions.champion_rollback(reason="bad")
            else:
                promotions.version_promote(second, reason="good")
            while not load.versions()[target.pk]:
                time.sleep(0.005)
            taken.append(time.monotonic() - started)
        median = statistics.median(taken)
        say(f"the other, warm version answers after {max(taken):.2f} s at most (median {median:.2f})")
        say(f"{dict(load.statuses())}")


def canary(model: str, clients: int, seconds: float) -> None:
    champion, challenger = make_versions(model, 2)
    promotions.version_promote(champion, reason="first")
    promotions.rollout_update(canary_share=0.2, shadow_share=0.0, max_latency_ratio=100.0)
    promotions.version_promote(challenger, alias=Alias.Name.CHALLENGER, reason="try it")
    with web() as site:
        site.wait(challenger.pk, "challenger")
        with site.load(clients, photos=2000) as load:
            load.wait()
        versions = load.versions()
        share = f"{versions[challenger.pk] / versions.total():.2%} of {versions.total()} by the challenger"
        say(f"share 20 %: {share}; {line(load)}")
        logged = Caption.objects.filter(model_version=challenger.pk).count()
        say(f"rows that name the challenger: {logged}, answers that do: {versions[challenger.pk]}")


def shadow(model: str, clients: int, seconds: float) -> None:
    champion, challenger = make_versions(model, 2)
    promotions.version_promote(champion, reason="first")
    promotions.rollout_update(canary_share=0.0, shadow_share=0.1, max_latency_ratio=100.0)
    with web() as site, site.load(1, pause=0.5) as load:
        site.wait(champion.pk)
        time.sleep(5)
        medians: dict[str, list[float]] = {"without": [], "with": []}
        for turn in range(6):
            name = ("without", "with")[turn % 2]
            if name == "with":
                promotions.version_promote(challenger, alias=Alias.Name.CHALLENGER, reason="try it")
                site.wait(challenger.pk, "challenger")
            load.answers.clear()
            time.sleep(seconds)
            medians[name] += [answer.seconds for answer in load.answers]
            say(f"{name}: {line(load)}")
            promotions.challenger_clear(reason="end of the turn")
            time.sleep(1.5)
        ratio = statistics.median(medians["with"]) / statistics.median(medians["without"])
        say(f"p50 with / without: {ratio:.3f}; {ChallengerTrial.objects.count()} photos captioned along")


def breach(model: str, clients: int, seconds: float) -> None:
    versions = make_versions(model, 3)
    promotions.version_promote(versions[0], reason="first")
    promotions.rollout_update(canary_share=0.1, shadow_share=0.0)
    os.environ |= {"BROKEN_THROWS": versions[1].pk, "BROKEN_SLOW": versions[2].pk}
    broken = ROOT / "tests" / "stack" / "gunicorn_broken.py"
    with web(broken) as site, site.load(clients, pause=clients / 10) as load:
        for what, challenger in (("throws", versions[1]), ("is slow", versions[2])):
            load.answers.clear()
            promotions.version_promote(challenger, alias=Alias.Name.CHALLENGER, reason="try it")
            started = time.monotonic()
            wait_until(lambda: promotions.challenger_get() is None, "taken back", seconds=120)
            taken = time.monotonic() - started
            time.sleep(2)
            say(f"a challenger that {what}: taken back after {taken:.1f} s; {line(load)}")
            say(f"  {Promotion.objects.filter(alias='challenger').first().reason}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("swap", "rollback", "canary", "shadow", "breach"))
    parser.add_argument("--model", choices=("starter", "tiny"), default="starter")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=40, help="of each measurement")
    options = parser.parse_args()
    (FOLDER / "var").mkdir(exist_ok=True)
    call_command("migrate", verbosity=0)
    globals()[options.what](options.model, options.clients, options.seconds)


if __name__ == "__main__":
    main()
