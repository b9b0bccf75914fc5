"""The contenders as processes of their own, each in a process group that is stopped as a whole."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, cast

from tests.benchmarks.speed.errors import BenchmarkError, NotReady
from tests.benchmarks.speed.load import MAX_NEW_TOKENS, Answer, load_run
from tests.benchmarks.speed.photos import Photo

ROOT = Path(__file__).resolve().parents[3]
_START_SECONDS = 300
_STOP_SECONDS = 40  # a little more than the service's own grace period
# How to compute and serve is as configured here. Databases, stores and hosts are left out: none is touched.
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_", "LD_", "OMP_", "MKL_", "KMP_", "GOMP_", "CAPTION_", "WEB_")
# What is compared is speed. A service that refuses work, as ours does by default, would not finish it.
_NEVER_REFUSE = {"CAPTION_MAX_WAIT_SECONDS": "300", "CAPTION_TIMEOUT_SECONDS": "300"}


class Offline:
    """A loop over photo files in a process; see `tests.benchmarks.speed.offline`."""

    def __init__(self, process: "subprocess.Popen[str]", log: Path) -> None:
        # Popen's are None when there is no pipe.
        self._requests, self._answers = cast(IO[str], process.stdin), cast(IO[str], process.stdout)
        self._log = log
        self.precision: str = self._read()["precision"]

    def run(self, paths: Sequence[Path], batch: int, threads: int) -> dict[str, list[Any]]:
        """One timed pass: `captions` of the photos, `seconds` of the batches."""
        request = {"paths": [str(path) for path in paths], "batch": batch, "threads": threads}
        with contextlib.suppress(BrokenPipeError):  # then there is no answer either
            self._requests.write(json.dumps(request) + "\n")
            self._requests.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        line = self._answers.readline()
        if not line:
            raise BenchmarkError(f"An offline loop ended early. {_last_words(self._log)}")
        answer: dict[str, Any] = json.loads(line)
        return answer


class Server:
    """A server that answers uploads on `port` of the loopback address.

    It is stopped while others have their turn: a server that polls would take time from them.
    """

    precision = "fp32"

    def __init__(self, process: "subprocess.Popen[str]", port: int) -> None:
        self.uploads = 0
        self.seconds = 0.0  # under load
        self.client_cpu_seconds = 0.0
        self._process, self._port = process, port

    def load(self, photos: Sequence[Photo], clients: int) -> list[Answer]:
        """The answers to `photos` from `clients` at a time, as they came."""
        started, cpu_started = time.perf_counter(), time.process_time()
        with self._awake():
            answers = load_run(self._port, photos, clients)
        self.seconds += time.perf_counter() - started
        self.client_cpu_seconds += time.process_time() - cpu_started
        self.uploads += len(answers)
        return answers

    def wait_ready(self, photo: Photo, log: Path) -> None:
        """Return once `photo` was answered with a caption. Raises `BenchmarkError` if it never is."""
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                self.load([photo], clients=1)
            except NotReady as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise BenchmarkError(f"A server did not start. {error} {_last_words(log)}") from error
                time.sleep(0.2)
            else:
                return

    @contextlib.contextmanager
    def _awake(self) -> Iterator[None]:
        _group_signal(self._process, signal.SIGCONT)
        yield
        # Not after an error: it may still be starting.
        _group_signal(self._process, signal.SIGSTOP)


class Service(Server):
    """Captioner itself, with all it writes in `data`."""

    def __init__(self, process: "subprocess.Popen[str]", port: int, data: Path) -> None:
        super().__init__(process, port)
        self._data = data

    def wait_ready(self, photo: Photo, log: Path) -> None:
        super().wait_ready(photo, log)
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/readyz", timeout=10) as answer:
            self.precision = json.load(answer)["precision"]["chosen"]

    def stored_photos(self) -> int:
        return sum(1 for _ in (self._data / "photos").rglob("*.jpg"))

    @contextlib.contextmanager
    def _awake(self) -> Iterator[None]:
        # Never stopped: gunicorn would take its waking worker for a hanging one. It does not poll anyway.
        yield


@contextlib.contextmanager
def offline(loop: str, weights: Path, precision: str, folder: Path) -> Iterator[Offline]:
    """The loop `bare` or `engine` of `tests.benchmarks.speed.offline`, with its log in `folder`."""
    arguments = [
        sys.executable,
        "-m",
        "tests.benchmarks.speed.offline",
        loop,
        weights,
        precision,
        MAX_NEW_TOKENS,
    ]
    log = folder / f"{loop}.log"
    with _process(arguments, log, _environment(), piped=True) as process:
        yield Offline(process, log)


@contextlib.contextmanager
def peer(script: Path, weights: Path, folder: Path, first: Photo) -> Iterator[Server]:
    """Another server around the same weights: `python SCRIPT WEIGHTS PORT MAX_NEW_TOKENS`.

    It computes in fp32, decodes greedily and answers uploads to `load.PATH` with `{"caption": ...}`.
    """
    port, log = _free_port(), folder / f"{script.stem}.log"
    arguments = [sys.executable, script.resolve(), weights, port, MAX_NEW_TOKENS]
    with _process(arguments, log, _environment()) as process:
        server = Server(process, port)
        try:
            server.wait_ready(first, log)
        except BenchmarkError as error:
            hint = "What the peers import is installed by: pip install -r tests/requirements.txt"
            raise BenchmarkError(f"{script.name}: {error}\n{hint}") from error
        yield server


@contextlib.contextmanager
def service(weights: Path, folder: Path, first: Photo) -> Iterator[Service]:
    """Captioner as it is deployed, except that all it writes goes to SQLite and files in `folder`."""
    port, log = _free_port(), folder / "service.log"
    data = folder / "service"
    data.mkdir()
    environment = _environment() | _NEVER_REFUSE
    environment |= {"CAPTIONER_DATA_DIR": str(data), "HOST": "127.0.0.1", "PORT": str(port)}
    for command in (["migrate", "--verbosity", "0"], ["import_model", weights, "--promote"]):
        with _process([sys.executable, ROOT / "manage.py", *command], log, environment) as process:
            if process.wait() != 0:
                raise BenchmarkError(f"`manage.py {command[0]}` failed. {_last_words(log)}")
    arguments = [sys.executable, "-m", "gunicorn", "--config", ROOT / "deploy" / "gunicorn.conf.py"]
    with _process(arguments, log, environment) as process:
        server = Service(process, port, data)
        server.wait_ready(first, log)
        yield server


@contextlib.contextmanager
def _process(
    arguments: Sequence[object], log: Path, environment: dict[str, str], *, piped: bool = False
) -> "Iterator[subprocess.Popen[str]]":
    """A process that leads a group of its own, which is told to stop at the end and killed if it does not.

    What it writes goes to `log`, except that a `piped` one's input and standard output are ours.
    """
    with log.open("a", encoding="utf-8") as output:
        process = subprocess.Popen(
            [str(argument) for argument in arguments],
            stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
            stdout=subprocess.PIPE if piped else output,
            stderr=output,
            text=True,
            cwd=ROOT,
            env=environment,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _group_signal(process, signal.SIGTERM, signal.SIGCONT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
        _group_signal(process, signal.SIGKILL)  # it, or what it may have left behind
        process.wait()


def _group_signal(process: "subprocess.Popen[str]", *signals: signal.Signals) -> None:
    for each in signals:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, each)


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(_PASSED_ON)}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _last_words(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return "Its log ends with:\n" + "\n".join(lines[-5:]) if lines else "It logged nothing."
