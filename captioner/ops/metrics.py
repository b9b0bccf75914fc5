"""What Prometheus is told, summed over all processes of this machine: web workers, and workers of batch jobs.

Each process of the servers keeps its numbers in files of its own in `METRICS_DIR` (the library's multiprocess mode,
which the servers' configuration turns on), and whichever answers `/metrics` adds them up. Numbers of processes that
ended count on; what they were doing does not. Any other process, such as a command, keeps its numbers to itself.

Files are written and not mapped into memory: on a full disk a write to mapped memory kills the process (SIGBUS).
"""

import errno
import logging
import os
import re
import shutil
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.utils.functional import SimpleLazyObject

from captioner.exceptions import (
    CaptionerError,
    ClientGone,
    DeadlineExceeded,
    InvalidImage,
    ModelUnavailable,
    Overloaded,
    StorageUnavailable,
)

if TYPE_CHECKING:
    from prometheus_client import Counter, Gauge, Histogram

logger = logging.getLogger(__name__)
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20)
_REASONS = {
    InvalidImage: "invalid_image",
    Overloaded: "overloaded",
    DeadlineExceeded: "deadline_exceeded",
    ModelUnavailable: "model_unavailable",
    ClientGone: "client_gone",
    StorageUnavailable: "storage_unavailable",
}
_FORGOTTEN_SECONDS = 7 * 24 * 3600
_FILE_PID = re.compile(r"_(\d+)\.db$")
_HEAD = struct.Struct("i4x")
_NUMBER = struct.Struct("dd")
_making = threading.Lock()


class NumbersFile:
    """One process's numbers in the library's format, in place of its class that maps the file into memory.

    What cannot be written is kept, and follows with the next number that can. Not thread-safe; the library has a lock.
    """

    def __init__(self, filename: str) -> None:
        from prometheus_client.mmap_dict import MmapedDict

        self._path = filename
        self._file: int | None = None
        self._fails = False
        # What the file is to hold after its head, which says how many bytes those are: per number the length of its
        # key, the key, padded with blanks, the number and its Unix time.
        self._content = bytearray(_HEAD.size)
        self._announced = 0
        self._places: dict[str, int] = {}
        path = Path(filename)
        # Of a process that had the same id, in a container that was replaced: its numbers count on.
        if path.exists() and path.stat().st_size >= _HEAD.size:
            for key, value, timestamp, _ in MmapedDict.read_all_values_from_file(filename):  # type: ignore[no-untyped-call]
                self.write_value(key, value, timestamp)
        self._write(_HEAD.size, b"")

    def read_value(self, key: str) -> tuple[float, float]:
        """The number and its time; 0 for one that is new, which is written."""
        if key not in self._places:
            self.write_value(key, 0.0, 0.0)
        value, timestamp = _NUMBER.unpack_from(self._content, self._places[key])
        return value, timestamp

    def write_value(self, key: str, value: float, timestamp: float) -> None:
        number = _NUMBER.pack(value, timestamp)
        if key in self._places:
            self._write(self._places[key], number)
            return
        text = key.encode()
        entry = struct.pack("i", len(text)) + text + b" " * (8 - (len(text) + 4) % 8) + number
        self._places[key] = len(self._content) + len(entry) - _NUMBER.size
        self._write(len(self._content), entry)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _write(self, place: int, data: bytes) -> None:
        self._content[place : place + len(data)] = data
        if self._fails:
            place, data = _HEAD.size, bytes(self._content[_HEAD.size :])
        try:
            if self._file is None:
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
                if not os.fstat(self._file).st_size:
                    os.ftruncate(
                        self._file, _HEAD.size
                    )  # zeros take no space, and tell a reader of no number
            _write_whole(self._file, data, place)
            if self._announced != len(
                self._content
            ):  # last, so that nobody reads on where nothing was written
                _write_whole(self._file, _HEAD.pack(len(self._content)), 0)
                self._announced = len(self._content)
        except OSError as error:
            if not self._fails:
                logger.error("Numbers for Prometheus cannot be written to %s: %s", self._path, error)
            self._fails = True
        else:
            self._fails = False


def _write_whole(file: int, data: bytes, place: int) -> None:
    if os.pwrite(file, data, place) < len(data):  # what there was room for
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _lazily(kind: str, *args: Any, **kwargs: Any) -> Any:
    @cache
    def make() -> Any:
        # The library looks for PROMETHEUS_MULTIPROC_DIR when it is imported: a worker's process sets it before.
        import prometheus_client
        from prometheus_client import values

        values.MmapedDict = NumbersFile  # type: ignore[attr-defined, assignment]
        return getattr(prometheus_client, kind)(*args, **kwargs)

    def make_once() -> Any:
        with _making:  # several threads may come first, and the library takes no number twice
            return make()

    return SimpleLazyObject(make_once)


_histogram = partial(_lazily, "Histogram")
_counter = partial(_lazily, "Counter")
_gauge = partial(_lazily, "Gauge")

queue_depth: "Gauge" = _gauge(
    "captioner_queue_depth", "Photos accepted and not answered yet.", multiprocess_mode="livesum"
)
queue_seconds: "Histogram" = _histogram(
    "captioner_queue_seconds", "Time each photo waited for the model.", buckets=_SECONDS
)
preprocess_seconds: "Histogram" = _histogram(
    "captioner_preprocess_seconds", "Time to decode and resize each photo.", buckets=_SECONDS
)
inference_seconds: "Histogram" = _histogram(
    "captioner_inference_seconds", "Time the model took for each batch.", buckets=_SECONDS
)
batch_size: "Histogram" = _histogram(
    "captioner_batch_size", "Photos in each batch.", buckets=(1, 2, 4, 8, 16, 32, 64)
)
captions: "Counter" = _counter(
    "captioner_captions", "Photos by how it went: captioned, rejected or failed.", ["outcome"]
)
rejects: "Counter" = _counter("captioner_rejects", "Photos that got no caption, by reason.", ["reason"])
model_info: "Gauge" = _gauge(
    "captioner_model_info", "1 for the version that serves.", ["name", "version"], multiprocess_mode="livemax"
)
model_load_seconds: "Gauge" = _gauge(
    "captioner_model_load_seconds",
    "Time the last version took to load and warm up.",
    multiprocess_mode="livemostrecent",
)
canary_share: "Gauge" = _gauge(
    "captioner_canary_share",
    "Share of photos that a challenger captions.",
    multiprocess_mode="livemostrecent",
)
versions_refused: "Gauge" = _gauge(
    "captioner_versions_refused",
    "1 while what an alias points at cannot be served by some process.",
    ["alias"],
    multiprocess_mode="livemax",
)
registry_looked_at: "Gauge" = _gauge(
    "captioner_registry_look_timestamp_seconds",
    "Unix time of the last look at the registry that worked, in the process that is furthest behind.",
    multiprocess_mode="livemin",
)
challengers_taken_back: "Counter" = _counter(
    "captioner_challengers_taken_back", "Challengers taken back because they were worse than the champion."
)
http_requests: "Counter" = _counter(
    "captioner_http_requests", "Requests answered.", ["view", "method", "status"]
)
http_seconds: "Histogram" = _histogram(
    "captioner_http_request_seconds", "Time to answer.", ["view"], buckets=_SECONDS
)


def process_begin() -> None:
    """For a process of the servers, as it starts: what those that were killed were doing does not count any more."""
    settings.METRICS_DIR.mkdir(parents=True, exist_ok=True)
    for pid in _dead(settings.METRICS_DIR.glob("gauge_live*.db")):
        process_ended(pid)


def process_ended(pid: int) -> None:
    """What that process was doing does not count any more."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(pid, str(settings.METRICS_DIR))  # type: ignore[no-untyped-call]


def serving_start() -> None:
    """Show every number from zero, and forget those of an earlier run of the service."""
    folder: Path = settings.METRICS_DIR
    process_begin()
    for pid in _dead(folder.glob("*.db")):
        for path in folder.glob(f"*_{pid}.db"):
            path.unlink(missing_ok=True)
    # Those of containers that were replaced, where they share the folder.
    for other in folder.parent.iterdir():
        changed_at = max((path.stat().st_mtime for path in [other, *other.glob("*")]), default=0.0)
        if other != folder and time.time() - changed_at > _FORGOTTEN_SECONDS:
            shutil.rmtree(other, ignore_errors=True)
    queue_depth.inc(0)
    canary_share.set(0)
    challengers_taken_back.inc(0)
    for outcome in ("captioned", "rejected", "failed"):
        captions.labels(outcome)
    for reason in (*_REASONS.values(), "failed"):
        rejects.labels(reason)


def exposition() -> bytes:
    """All numbers of this machine in Prometheus' text format; outside of the servers, those of this process."""
    from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
    from prometheus_client.multiprocess import MultiProcessCollector

    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(settings.METRICS_DIR))  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def batch_done(size: int, seconds: float) -> None:
    """For `Batcher.on_batch`."""
    batch_size.observe(size)
    inference_seconds.observe(seconds)


@contextmanager
def rejects_counted() -> Iterator[None]:
    """Around the captioning of one photo: its exceptions are counted."""
    try:
        yield
    except Exception as error:
        captions.labels("rejected" if isinstance(error, CaptionerError) else "failed").inc()
        rejects.labels(_REASONS.get(type(error), "failed")).inc()
        raise


def _dead(files: Iterable[Path]) -> set[int]:
    """The processes that kept these files and have ended."""
    dead = set()
    for pid in {int(match.group(1)) for path in files if (match := _FILE_PID.search(path.name))}:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            dead.add(pid)
        except PermissionError:  # it lives, and is somebody else's
            pass
    return dead
