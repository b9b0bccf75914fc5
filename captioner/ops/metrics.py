"""What Prometheus is told, summed over all processes of this machine: web workers, and workers of batch jobs.

Each process of the servers keeps its numbers in files of its own in `METRICS_DIR` (the library's multiprocess mode,
which the servers' configuration turns on), and whichever answers `/metrics` adds them up. Numbers of processes that
ended count on; what they were doing does not. Any other process, such as a command, keeps its numbers to itself.
"""

import os
import re
import shutil
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
_making = threading.Lock()


def _lazily(kind: str, *args: Any, **kwargs: Any) -> Any:
    @cache
    def make() -> Any:
        # The library looks for PROMETHEUS_MULTIPROC_DIR when it is imported: a worker's process sets it before.
        import prometheus_client

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
