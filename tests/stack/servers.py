"""Real servers as processes of the test run: PostgreSQL, Redis, an S3 server, and Captioner itself.

Each is a context manager that picks a free port of the loopback address, waits until the server answers, and stops it.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
# PostgreSQL refuses to run as root; its Debian package brings this user.
_SERVER_USER = "postgres" if os.geteuid() == 0 else None


def find_program(name: str, *folders: str) -> str:
    """The path of a server program, or the test is skipped, saying why; where `CI` is set it fails instead."""
    path = shutil.which(name, path=os.pathsep.join([os.environ["PATH"], *folders]))
    if path is None:
        message = f"{name} is not installed here; .ci/run names the packages"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    return path


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"{what} within {seconds:.0f} s")
        time.sleep(0.05)


@contextlib.contextmanager
def process(arguments: list[str | Path], log: Path, **options) -> Iterator[subprocess.Popen]:
    """A child process in a session of its own, told to stop at the end and killed if it does not."""
    with log.open("ab") as output:
        child = subprocess.Popen(arguments, stdout=output, stderr=output, start_new_session=True, **options)
    try:
        yield child
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
        try:
            child.wait(timeout=45)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def listens(port: int, host: str = "127.0.0.1") -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False


@dataclass
class Server:
    """A server that can be killed and started again where it was. `url` is how clients find it."""

    url: str
    arguments: list[str | Path]
    log: Path
    answers: Callable[[], bool]
    options: dict = field(default_factory=dict)
    scratch: tempfile.TemporaryDirectory | None = None
    process: subprocess.Popen | None = None

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.arguments, stdout=output, stderr=output, start_new_session=True, **self.options
            )
        wait_until(self.answers, f"{Path(self.arguments[0]).name} answers (see {self.log})")

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal that ends the server, and wait for the end."""
        self.process.send_signal(number)
        self.process.wait(timeout=60)

    @contextlib.contextmanager
    def running(self) -> Iterator["Server"]:
        try:
            self.start()
            yield self
        finally:
            if self.process is not None and self.process.poll() is None:
                self.process.send_signal(signal.SIGCONT)
                self.process.terminate()
                try:
                    self.process.wait(timeout=45)
                except subprocess.TimeoutExpired:
                    os.killpg(self.process.pid, signal.SIGKILL)
                    self.process.wait()
            if self.scratch is not None:
                self.scratch.cleanup()


def scratch_folder(name: str) -> tempfile.TemporaryDirectory:
    """For a server that runs as another user than we do: pytest takes its own folders from others time and again."""
    scratch = tempfile.TemporaryDirectory(prefix=f"captioner-{name}-")
    if _SERVER_USER:
        shutil.chown(scratch.name, _SERVER_USER)
    return scratch


def postgresql_server(folder: Path, host: str = "127.0.0.1") -> Server:
    """A fresh PostgreSQL cluster, not started yet."""
    import psycopg

    folders = [str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    initdb, postgres = find_program("initdb", *folders), find_program("postgres", *folders)
    scratch, port = scratch_folder("postgresql"), free_port()
    data = Path(scratch.name, "data")
    subprocess.run(
        [initdb, "--pgdata", data, "--username", "captioner", "--auth", "trust", "--no-sync"],
        check=True,
        capture_output=True,
        user=_SERVER_USER,
        cwd="/",
    )
    with (data / "pg_hba.conf").open("a") as rules:
        rules.write("host all all samenet trust\n")
    url = f"postgres://captioner@{host}:{port}/postgres"

    def answers() -> bool:
        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(url, connect_timeout=2):
            return True
        return False

    arguments = [postgres, "-D", data, "-p", str(port), "-h", host, "-k", data, "-F"]
    options = {"user": _SERVER_USER, "cwd": "/"}
    return Server(url, arguments, folder / "postgresql.log", answers, options, scratch)


@contextlib.contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """A fresh PostgreSQL cluster; yields its `DATABASE_URL`."""
    with postgresql_server(folder).running() as server:
        yield server.url


def pgbouncer_server(folder: Path, database: Server, host: str = "127.0.0.1") -> Server:
    """A pooler in front of `database` that hands out connections per transaction, as in deploy/k8s; not started yet."""
    program, port = find_program("pgbouncer", "/usr/sbin"), free_port()
    target, scratch = urllib.parse.urlsplit(database.url), scratch_folder("pgbouncer")
    Path(scratch.name, "userlist.txt").write_text('"captioner" ""\n')
    configuration = Path(scratch.name, "pgbouncer.ini")
    configuration.write_text(
        f"""
        [databases]
        postgres = host={target.hostname} port={target.port}
        [pgbouncer]
        listen_addr = {host}
        listen_port = {port}
        unix_socket_dir =
        auth_type = trust
        auth_file = {scratch.name}/userlist.txt
        pool_mode = transaction
        default_pool_size = 10
        """.replace("        ", "")
    )
    url = f"postgres://captioner@{host}:{port}/postgres"
    options = {"user": _SERVER_USER, "cwd": "/"}
    answers = partial(listens, port, host)
    return Server(url, [program, configuration], folder / "pgbouncer.log", answers, options, scratch)


def redis_server(folder: Path, host: str = "127.0.0.1") -> Server:
    """A Redis server that survives a kill with what it held, as deploy/compose.yml runs it; not started yet."""
    program, port = find_program("redis-server"), free_port()
    arguments = [program, "--port", str(port), "--bind", host, "--protected-mode", "no", "--dir", str(folder)]
    arguments += ["--appendonly", "yes", "--save", ""]
    return Server(f"redis://{host}:{port}/0", arguments, folder / "redis.log", partial(listens, port, host))


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[str]:
    """A Redis server; yields its URL."""
    with redis_server(folder).running() as server:
        yield server.url


def s3_server(folder: Path, host: str = "127.0.0.1") -> Server:
    """An S3 server (moto) that holds everything in memory, not started yet; `s3_variables` name it."""
    port = free_port()
    arguments = [BIN / "moto_server", "-H", host, "-p", str(port)]
    return Server(f"http://{host}:{port}", arguments, folder / "s3.log", partial(listens, port, host))


def s3_variables(server: Server) -> dict[str, str]:
    return {
        "S3_ENDPOINT_URL": server.url,
        "S3_BUCKET": "captioner",
        "S3_ACCESS_KEY": "test-key",
        "S3_SECRET_KEY": "test-secret",
    }


@contextlib.contextmanager
def s3(folder: Path) -> Iterator[dict[str, str]]:
    """An S3 server (moto) with an empty bucket; yields the environment variables that name it."""
    with s3_server(folder).running() as server:
        bucket_make(s3_variables(server))
        yield s3_variables(server)


def s3_client(environment: dict[str, str]) -> Any:
    """A client of the S3 server that the variables of `environment` name."""
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=environment["S3_ENDPOINT_URL"],
        aws_access_key_id=environment["S3_ACCESS_KEY"],
        aws_secret_access_key=environment["S3_SECRET_KEY"],
        region_name="us-east-1",
    )


def bucket_make(environment: dict[str, str]) -> None:
    s3_client(environment).create_bucket(Bucket=environment["S3_BUCKET"])


@dataclass
class Site:
    """Captioner running as it does for a user."""

    url: str
    environment: dict[str, str]
    log: Path
    process: subprocess.Popen
    setup_output: str

    def manage(self, *arguments: str) -> str:
        return manage(self.environment, *arguments)

    def status(self) -> dict:
        """The answer of `/readyz`, or an empty one where nothing listens."""
        import json

        with contextlib.suppress(OSError):
            try:
                with urllib.request.urlopen(f"{self.url}/readyz", timeout=5) as response:
                    return json.load(response)
            except urllib.error.HTTPError as error:
                return json.load(error)
        return {}

    def wait_ready(self) -> None:
        wait_until(lambda: self.status().get("state") == "ready", f"ready (see {self.log})", seconds=120)


def manage(environment: dict[str, str], *arguments: str) -> str:
    result = subprocess.run(
        [sys.executable, ROOT / "manage.py", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@contextlib.contextmanager
def captioner(folder: Path, *, wait: bool = True, **variables: str) -> Iterator[Site]:
    """`manage.py setup`, then web, worker and beat under the supervisor, the way `make run` starts them."""
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "VENV": str(BIN.parent),
        "CAPTIONER_DATA_DIR": str(folder / "var"),
        "PORT": str(port),
        "OMP_NUM_THREADS": "2",
        **variables,
    }
    output = manage(environment, "setup")
    log = folder / "captioner.log"
    arguments = [BIN / "supervisord", "--configuration", ROOT / "deploy" / "supervisord.conf"]
    with process(arguments, log, env=environment, cwd=ROOT) as child:
        site = Site(f"http://127.0.0.1:{port}", environment, log, child, output)
        if wait:
            site.wait_ready()
        yield site
