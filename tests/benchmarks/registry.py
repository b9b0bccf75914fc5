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
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path

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
from PIL import Image

from captioner.models import Caption, ChallengerTrial
from models_registry import bundled, promotions
from models_registry.models import Alias, ModelVersion, Promotion
from models_registry.versions import version_publish
from tests.captioner.inference.checkpoints import SAVERS


@dataclass
class Load:
    """Clients that send photos never sent before: each the next one once answered, after a pause if there is one."""

    port: int
    clients: int
    pause: float = 0.0  # mean seconds, exponentially distributed
    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int | str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    limit: float = float("inf")

    def __enter__(self) -> "Load":
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self.wait()

    def wait(self) -> None:
        for thread in self._threads:
            thread.join()

    def _run(self, client: int) -> None:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        photo, number = draw_photo(client), client * 1_000_000
        while not self._stop.is_set() and sum(self.statuses.values()) < self.limit:
            number += 1
            if self.pause:
                self._stop.wait(random.expovariate(1 / self.pause))
            started = time.perf_counter()
            try:
                # What follows the end of a JPEG is ignored, and makes it another file.
                body = photo + number.to_bytes(8, "big")
                connection.request(
                    "POST", "/api/v1/captions", body, {"Content-Type": "application/octet-stream"}
                )
                response = connection.getresponse()
                answer = json.loads(response.read())
            except (OSError, ValueError) as error:
                self.statuses[repr(error)] += 1
                connection.close()
                continue
            self.seconds.append(time.perf_counter() - started)
            self.statuses[response.status] += 1
            if response.status == 201:
                self.versions[answer["model"]["version"]] += 1

    def reset(self) -> None:
        self.seconds, self.statuses, self.versions = [], Counter(), Counter()

    def line(self) -> str:
        times = sorted(self.seconds)
        p50, p99 = statistics.median(times) * 1000, times[int(len(times) * 0.99)] * 1000
        figures = f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, slowest {times[-1] * 1000:.0f} ms"
        return f"{len(times)} requests, {figures}, {dict(self.statuses)}"

    def percentile(self, share: float) -> float:
        return sorted(self.seconds)[int(len(self.seconds) * share)]


def draw_photo(seed: int) -> bytes:
    import io

    noise = Image.effect_noise((320, 240), 60 + seed % 50).convert("RGB")
    buffer = io.BytesIO()
    noise.save(buffer, "JPEG")
    return buffer.getvalue()


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
    port: int
    pid: int

    def status(self) -> dict:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=10) as response:
                answer: dict = json.load(response)
                return answer
        except (OSError, ValueError):
            return {}

    def wait(self, version: str, alias: str = "model") -> float:
        """Seconds until the process says that the version serves: its follower looked, and its loader loaded."""
        started = time.monotonic()
        servers.wait_until(
            lambda: (self.status().get(alias) or {}).get("version") == version, version, seconds=180
        )
        return time.monotonic() - started

    def memory_mb(self) -> float:
        lines = Path(f"/proc/{self.status()['pid']}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1000 for line in lines if line.startswith("VmRSS"))


@contextlib.contextmanager
def web(configuration: Path = servers.ROOT / "deploy" / "gunicorn.conf.py") -> Iterator[Web]:
    port = servers.free_port()
    command = [servers.BIN / "gunicorn", "--config", configuration]
    environment = {**os.environ, "PORT": str(port)}
    with servers.process(command, FOLDER / "web.log", env=environment, cwd=servers.ROOT) as child:
        site = Web(port, child.pid)
        servers.wait_until(lambda: site.status().get("state") == "ready", "ready", seconds=120)
        yield site


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def swap(model: str, clients: int, seconds: float) -> None:
    versions = make_versions(model, 12)
    promotions.version_promote(versions[0], reason="first")
    with web() as site, Load(site.port, clients) as load:
        time.sleep(5)
        # The version before is kept from the first swap on: that is part of what serving costs.
        promotions.version_promote(versions[1], reason="before the measurement")
        site.wait(versions[1].pk)
        time.sleep(5)
        load.reset()
        memory, started = site.memory_mb(), time.monotonic()
        time.sleep(seconds)
        steady = load.line()
        steady_p99, rate = load.percentile(0.99), len(load.seconds) / (time.monotonic() - started)
        say(f"steady:    {steady}; {rate:.0f} requests/s, {memory:.0f} MB")
        load.reset()
        began = time.monotonic()
        taken = []
        for version in versions[2:]:
            promotions.version_promote(version, reason="swap")
            taken.append(site.wait(version.pk))
            time.sleep(max(0.0, began + seconds / 10 * len(taken) - time.monotonic()))
        say(f"10 swaps:  {load.line()} in {time.monotonic() - began:.0f} s")
        say(f"p99 ratio {load.percentile(0.99) / steady_p99:.2f}; a swap takes at most {max(taken):.1f} s")
        time.sleep(2)
        after = site.memory_mb()
        say(f"memory {memory:.0f} -> {after:.0f} MB, ratio {after / memory:.3f}")


def rollback(model: str, clients: int, seconds: float) -> None:
    first, second = make_versions(model, 2)
    promotions.version_promote(first, reason="first")
    with web() as site, Load(site.port, clients) as load:
        promotions.version_promote(second, reason="second")
        site.wait(second.pk)
        taken = []
        for target in (first, second) * 5:
            time.sleep(1 + random.random())
            load.versions.clear()
            started = time.monotonic()
            if target == first:
                promotions.champion_rollback(reason="bad")
            else:
                promotions.version_promote(second, reason="good")
            while not load.versions[target.pk]:
                time.sleep(0.005)
            taken.append(time.monotonic() - started)
        median = statistics.median(taken)
        say(f"the other, warm version answers after {max(taken):.2f} s at most (median {median:.2f})")
        say(f"{dict(load.statuses)}")


def canary(model: str, clients: int, seconds: float) -> None:
    champion, challenger = make_versions(model, 2)
    promotions.version_promote(champion, reason="first")
    promotions.rollout_update(canary_share=0.2, shadow_share=0.0, max_latency_ratio=100.0)
    promotions.version_promote(challenger, alias=Alias.Name.CHALLENGER, reason="try it")
    with web() as site:
        site.wait(challenger.pk, "challenger")
        with Load(site.port, clients, limit=2000) as load:
            load.wait()
        total = sum(load.versions.values())
        say(
            f"share 20 %: {load.versions[challenger.pk] / total:.2%} of {total} by the challenger; {load.line()}"
        )
        logged = Caption.objects.filter(model_version=challenger.pk).count()
        say(f"rows that name the challenger: {logged}, answers that do: {load.versions[challenger.pk]}")


def shadow(model: str, clients: int, seconds: float) -> None:
    champion, challenger = make_versions(model, 2)
    promotions.version_promote(champion, reason="first")
    promotions.rollout_update(canary_share=0.0, shadow_share=0.1, max_latency_ratio=100.0)
    with web() as site, Load(site.port, 1, pause=0.5) as load:
        site.wait(champion.pk)
        time.sleep(5)
        medians: dict[str, list[float]] = {"without": [], "with": []}
        for turn in range(6):
            name = ("without", "with")[turn % 2]
            if name == "with":
                promotions.version_promote(challenger, alias=Alias.Name.CHALLENGER, reason="try it")
                site.wait(challenger.pk, "challenger")
            load.reset()
            time.sleep(seconds)
            medians[name] += load.seconds
            say(f"{name}: {load.line()}")
            promotions.challenger_clear(reason="end of the turn")
            time.sleep(1.5)
        ratio = statistics.median(medians["with"]) / statistics.median(medians["without"])
        say(f"p50 with / without: {ratio:.3f}; {ChallengerTrial.objects.count()} photos captioned along")


def breach(model: str, clients: int, seconds: float) -> None:
    versions = make_versions(model, 3)
    promotions.version_promote(versions[0], reason="first")
    promotions.rollout_update(canary_share=0.1, shadow_share=0.0)
    os.environ |= {"BROKEN_THROWS": versions[1].pk, "BROKEN_SLOW": versions[2].pk}
    broken = servers.ROOT / "tests" / "stack" / "gunicorn_broken.py"
    with web(broken) as site, Load(site.port, clients, pause=clients / 10) as load:
        for what, challenger in (("throws", versions[1]), ("is slow", versions[2])):
            load.reset()
            promotions.version_promote(challenger, alias=Alias.Name.CHALLENGER, reason="try it")
            started = time.monotonic()
            servers.wait_until(lambda: promotions.challenger_get() is None, "taken back", seconds=120)
            taken = time.monotonic() - started
            time.sleep(2)
            say(f"a challenger that {what}: taken back after {taken:.1f} s; {load.line()}")
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
