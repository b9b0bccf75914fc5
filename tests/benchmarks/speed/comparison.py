"""How fast this machine captions: without a server, through the service and through other servers.

All contenders caption the same photos with the same weights, greedily, and take turns, round after round, so
that a machine that drifts does so for all of them. Torch runs in their processes only.
"""

import importlib.metadata
import itertools
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tqdm import tqdm

from tests.benchmarks.speed import contenders, report
from tests.benchmarks.speed.contenders import Offline, Server, Service
from tests.benchmarks.speed.load import MAX_NEW_TOKENS
from tests.benchmarks.speed.photos import Photo, photos_draw, photos_read
from tests.benchmarks.speed.report import BARE, ENGINE, SERVICE, Pass, Passes, Row

BATCHES = (1, 2, 4, 8)
CLIENTS = (1, 8)
# What several clients upload per turn at least; a shorter turn says little about throughput.
_MIN_UPLOADS = 48


@dataclass(frozen=True, slots=True)
class Plan:
    """What to compare. `scratch` is a folder on the disk that the service would write to."""

    weights: Path
    model_version: str
    scratch: Path
    photos: Path | None  # a folder of JPEG files; None: drawn ones
    peers: Sequence[Path]  # scripts; see `contenders.peer`
    rounds: int


@dataclass(frozen=True, slots=True)
class _Field:
    """Everything that runs, by the name of the contender."""

    photos: list[Photo]
    loops: dict[str, Offline]
    service: Service
    peers: dict[str, Server]

    @property
    def servers(self) -> dict[str, Server]:
        return {SERVICE: self.service, **self.peers}

    def turns(self) -> dict[Row, Callable[[], Pass]]:
        turns: dict[Row, Callable[[], Pass]] = {}
        for contender, loop in self.loops.items():
            for threads, batch in itertools.product(_thread_counts(), BATCHES):
                row = Row(contender, batch=batch, threads=threads)
                turns[row] = partial(_loop_turn, loop, self.photos, batch, threads)
        for clients, (contender, server) in itertools.product(CLIENTS, self.servers.items()):
            row = Row(contender, clients=clients)
            turns[row] = partial(_server_turn, server, self.photos, clients)
        return turns


def benchmark_run(plan: Plan) -> str:
    """Let all contenders take turns; returns the report in Markdown. Raises `BenchmarkError`."""
    with tempfile.TemporaryDirectory(dir=plan.scratch, prefix="bench-") as folder, ExitStack() as stack:
        field = _field_start(plan, Path(folder), stack)
        passes = _take_turns(field.turns(), plan.rounds)
        notes = _notes(plan, field)
    return report.report_text(notes, passes)


def _field_start(plan: Plan, folder: Path, stack: ExitStack) -> _Field:
    photos = _photos(plan.photos, folder)
    loops: dict[str, Offline] = {}
    # One after the other: our engine measures at its start what pays on this machine.
    for contender, loop in ((BARE, "bare"), (ENGINE, "engine")):
        _say(f"Starting: {contender}")
        context = contenders.offline(loop, plan.weights, folder)
        loops[contender] = stack.enter_context(context)
    _say(f"Starting: {SERVICE}")
    service = stack.enter_context(contenders.service(plan.weights, folder, photos[0]))
    peers: dict[str, Server] = {}
    for script in plan.peers:
        _say(f"Starting: {script.name}")
        peer = stack.enter_context(contenders.peer(script, plan.weights, folder, photos[0]))
        peers[script.stem.removeprefix("peer_")] = peer
    field = _Field(photos, loops, service, peers)
    for server in field.servers.values():
        _server_turn(server, photos, max(CLIENTS))  # to warm up
    return field


def _photos(folder: Path | None, scratch: Path) -> list[Photo]:
    if folder is not None:
        return photos_read(folder.resolve())
    _say("Drawing photos")
    drawn = scratch / "photos"
    drawn.mkdir()
    photos_draw(drawn)
    return photos_read(drawn)


def _take_turns(turns: Mapping[Row, Callable[[], Pass]], rounds: int) -> Passes:
    passes: dict[Row, list[Pass]] = {row: [] for row in turns}
    with tqdm(total=rounds * len(turns), unit="turn", leave=False) as bar:
        for _ in range(rounds):
            for row, turn in turns.items():
                bar.set_description(str(row))
                passes[row].append(turn())
                bar.update()
    return passes


def _loop_turn(loop: Offline, photos: Sequence[Photo], batch: int, threads: int) -> Pass:
    answer = loop.run([photo.path for photo in photos], batch, threads)
    names = [photo.path.name for photo in photos]
    return Pass(
        photos_per_second=len(photos) / sum(answer["seconds"]),
        latencies=tuple(answer["seconds"]) if batch == 1 else (),
        captions=tuple(zip(names, answer["captions"], strict=True)),
    )


def _server_turn(server: Server, photos: Sequence[Photo], clients: int) -> Pass:
    """Whole passes over the photos, after an answer per client that is not counted: not all were busy yet."""
    repeats = 1 if clients == 1 else -(-_MIN_UPLOADS // len(photos))
    uploads = itertools.islice(itertools.cycle(photos), clients + repeats * len(photos))
    answers = server.load(list(uploads), clients)
    start, counted = answers[clients - 1].finished_at, answers[clients:]
    return Pass(
        photos_per_second=len(counted) / (counted[-1].finished_at - start),
        latencies=tuple(answer.seconds for answer in counted),
        captions=tuple((answer.photo, answer.caption) for answer in counted),
    )


def _notes(plan: Plan, field: _Field) -> list[str]:
    """What one has to know to read the figures, a sentence or two per line."""
    sizes = sorted(photo.megapixels for photo in field.photos)
    volume = sum(len(photo.data) for photo in field.photos) / 1e6
    service, servers = field.service, field.servers.values()
    client_share = sum(each.client_cpu_seconds for each in servers) / sum(each.seconds for each in servers)
    versions = " ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "transformers"))
    return [
        f"{_cpu_name()}, {_cores()} cores, Python {platform.python_version()}, {versions}.",
        f"{plan.model_version}, decoded greedily with at most {MAX_NEW_TOKENS} new tokens by all.",
        f"{len(sizes)} distinct photos of {sizes[0]:.1f} to {sizes[-1]:.1f} MP, {volume:.0f} MB in all.",
        f"Medians (lowest-highest) over {plan.rounds} rounds, in ms; p90 and p99 over all requests.",
        "All times include decoding the photo file. The service also stores photo and caption: every upload "
        f"was a file never sent before; it stored {service.stored_photos()} photos for {service.uploads} uploads.",
        f"The clients share the cores with the servers; they took {client_share:.1%} of one core.",
        "Identical: share of captions that equal those of the bare loop with batch 1 and 1 thread.",
    ]


def _thread_counts() -> list[int]:
    return sorted({1, _cores()})


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
