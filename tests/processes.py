"""Programs as child processes of a test or a benchmark: started, waited for, killed, stopped as a whole."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import pytest

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent


class NotStarted(AssertionError):
    """A process ended, or did not answer in time; says how its log ends."""


def missing(message: str) -> NoReturn:
    """Skips the test for want of something, saying what; where `CI` is set nothing may be wanting and it fails."""
    pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)


def find_program(name: str, *folders: str) -> str:
    """The path of a program, looked for in `folders` too; without one, see `missing`."""
    path = shutil.which(name, path=os.pathsep.join([os.environ["PATH"], *folders]))
    return path or missing(f"{name} is not installed here; .ci/run names the packages")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def listens(port: int, host: str = "127.0.0.1") -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.05)


@dataclass
class Process:
    """A child process that leads a session of its own, and can be killed and started again where it was.

    `options` are those of `subprocess.Popen`; what the process writes is appended to `log`, unless they say otherwise.
    """

    arguments: Sequence[object]
    log: Path
    options: dict[str, Any] = field(default_factory=dict)
    answers: Callable[[], bool] | None = None  # whether it does what it is there for
    start_seconds: float = 60
    child: subprocess.Popen | None = None

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def is_running(self) -> bool:
        return self.child is not None and self.child.poll() is None

    def start(self) -> None:
        """Start it and wait until it `answers`. Raises `NotStarted`."""
        with self.log.open("ab") as output:
            streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output}
            self.child = subprocess.Popen(
                list(map(str, self.arguments)), start_new_session=True, **streams | self.options
            )
        deadline = time.monotonic() + self.start_seconds
        while self.answers and not self.answers():
            if not self.is_running or time.monotonic() > deadline:
                raise NotStarted(f"{Path(str(self.arguments[0])).name} did not start. {last_words(self.log)}")
            time.sleep(0.05)

    def signal_all(self, number: signal.Signals) -> None:
        """Send a signal to the process and its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal that ends the process itself, and wait for the end."""
        self.child.send_signal(number)
        self.child.wait(timeout=60)

    def stop(self, seconds: float = 45) -> int | None:
        """TERM, and KILL for what is left after `seconds`, as Docker's engine does; returns the exit status."""
        if self.child is None:
            return None
        if self.is_running:
            self.child.terminate()
            self.signal_all(signal.SIGCONT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(seconds)
        self.signal_all(signal.SIGKILL)
        return self.child.wait()

    @contextlib.contextmanager
    def running(self) -> Iterator["Process"]:
        try:
            self.start()
            yield self
        finally:
            self.stop()


def process(arguments: Sequence[object], log: Path, **options: Any) -> AbstractContextManager[Process]:
    """A process that runs meanwhile."""
    return Process(arguments, log, options).running()


def last_words(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"{log} ends with:\n" + "\n".join(lines[-5:]) if lines else "It logged nothing."
