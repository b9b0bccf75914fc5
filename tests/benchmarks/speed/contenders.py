"""The contenders as processes of their own, each in a process group that is stopped as a whole."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.speed.errors import BenchmarkError, NotReady
from tests.benchmarks.speed.load import MAX_NEW_TOKENS, Captioned, load_run
from tests.benchmarks.speed.photos import Photo
from tests.processes import ROOT, NotStarted, Process, free_port, last_words

_START_SECONDS = 300
# How to compute and serve is as configured here. Databases, stores and hosts are left out: none is touched.
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_", "LD_", "OMP_", "MKL_", "KMP_", "GOMP_", "CAPTION_", "WEB_")
# What is compared is speed. A service that refuses work, as ours does by default, would not finish it.
_NEVER_REFUSE = {"CAPTION_MAX_WAIT_SECONDS": "300", "CAPTION_TIMEOUT_SECONDS": "300"}


class Offline:
    """A loop over photo files in a process; see `tests.benchmarks.speed.offline`."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._read()  # it has loaded the weights

    def run(self, paths: Sequence[Path], batch: int, threads: int) -> dict[str, list[Any]]:
        """One timed pass: `captions` of the photos, `seconds` of the batches."""
        asked = {"paths": [str(path) for path in paths], "batch": batch, "threads": threads}
        requests = self._process.child.stdin
        with contextlib.suppress(BrokenPipeError):  # then there is no answer either
            requests.write(json.dumps(asked) + "\n")
            requests.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        line = self._process.child.stdout.readline()
        if not line:
            raise BenchmarkError(f"An offline loop ended early. {last_words(self._process.log)}")
        return json.loads(line)


class Server:
    """A server that answers uploads on `port` of the loopback address.

    It is stopped while others have their turn: a server that polls would take time from them.
    """

    sleeps = True

    def __init__(self, process: Process, port: int) -> None:
        self.uploads = 0
        self.seconds = 0.0  # under load
        self.client_cpu_seconds = 0.0
        self._process, self._port = process, port

    def load(self, photos: Sequence[Photo], clients: int) -> list[Captioned]:
        """The answers to `photos` from `clients` at a time, as they came."""
        started, cpu_started = time.perf_counter(), time.process_time()
        if self.sleeps:
            self._process.signal_all(signal.SIGCONT)
        answers = load_run(self._port, photos, clients)
        if self.sleeps:  # not after an error: it may still be starting
            self._process.signal_all(signal.SIGSTOP)
        self.seconds += time.perf_counter() - started
        self.client_cpu_seconds += time.process_time() - cpu_started
        self.uploads += len(answers)
        return answers

    @contextlib.contextmanager
    def running(self, first: Photo) -> Iterator[None]:
        """From its answer to the photo `first` on. Raises `NotStarted`, `BenchmarkError`."""

        def answers() -> bool:
            with contextlib.suppress(NotReady):
                return bool(self.load([first], clients=1))
            return False

        self._process.answers, self._process.start_seconds = answers, _START_SECONDS
        with self._process.running():
            yield


class Service(Server):
    """Captioner itself, with all it writes in `data`."""

    # Never stopped: gunicorn would take its waking worker for a hanging one. It does not poll anyway.
    sleeps = False

    def __init__(self, process: Process, port: int, data: Path) -> None:
        super().__init__(process, port)
        self._data = data

    def stored_photos(self) -> int:
        return sum(1 for _ in (self._data / "photos").rglob("*.jpg"))


@contextlib.contextmanager
def offline(loop: str, weights: Path, folder: Path) -> Iterator[Offline]:
    """The loop `bare` or `engine` of `tests.benchmarks.speed.offline`, with its log in `folder`."""
    module = "tests.benchmarks.speed.offline"
    arguments = [sys.executable, "-m", module, loop, weights, MAX_NEW_TOKENS]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = Process(arguments, folder / f"{loop}.log", _options() | pipes)
    with process.running():
        yield Offline(process)


@contextlib.contextmanager
def peer(script: Path, weights: Path, folder: Path, first: Photo) -> Iterator[Server]:
    """Another server around the same weights: `python SCRIPT WEIGHTS PORT MAX_NEW_TOKENS`.

    It computes in fp32, decodes greedily and answers uploads to `/api/v1/captions` with `{"caption": ...}`.
    """
    port = free_port()
    arguments = [sys.executable, script.resolve(), weights, port, MAX_NEW_TOKENS]
    server = Server(Process(arguments, folder / f"{script.stem}.log", _options()), port)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(server.running(first))
        except (BenchmarkError, NotStarted) as error:
            hint = "What the peers import is installed by: pip install -r tests/requirements.txt"
            raise BenchmarkError(f"{script.name}: {error}\n{hint}") from error
        yield server


@contextlib.contextmanager
def service(weights: Path, folder: Path, first: Photo) -> Iterator[Service]:
    """Captioner as it is deployed, except that all it writes goes to SQLite and files in `folder`."""
    port, log = free_port(), folder / "service.log"
    data = folder / "service"
    data.mkdir()
    variables = {"CAPTIONER_DATA_DIR": str(data), "HOST": "127.0.0.1", "PORT": str(port), **_NEVER_REFUSE}
    options = _options(**variables)
    for command in (["migrate", "--verbosity", "0"], ["import_model", weights, "--promote"]):
        with Process([sys.executable, ROOT / "manage.py", *command], log, options).running() as process:
            if process.child.wait() != 0:
                raise BenchmarkError(f"`manage.py {command[0]}` failed. {last_words(log)}")
    arguments = [sys.executable, "-m", "gunicorn", "--config", ROOT / "deploy" / "gunicorn.conf.py"]
    server = Service(Process(arguments, log, options), port, data)
    with server.running(first):
        yield server


def _options(**variables: str) -> dict[str, Any]:
    passed_on = {name: value for name, value in os.environ.items() if name.startswith(_PASSED_ON)}
    return {"cwd": ROOT, "env": passed_on | variables}
