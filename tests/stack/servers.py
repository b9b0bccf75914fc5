"""Real servers as processes of the test run: PostgreSQL, Redis, an S3 server, and Captioner itself.

Each is a context manager that picks a free port of the loopback address, waits until the server answers, and stops it.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.client import request
from tests.processes import BIN, ROOT, Process, find_program, free_port, listens, process, wait_until

# PostgreSQL refuses to run as root; its Debian package brings this user.
_SERVER_USER = "postgres" if os.geteuid() == 0 else None


@dataclass
class Server(Process):
    """A server, which clients find by its `url`. `scratch` is a folder that goes with it."""

    url: str = ""
    scratch: tempfile.TemporaryDirectory | None = None

    @contextlib.contextmanager
    def running(self) -> Iterator["Server"]:
        try:
            with super().running():
                yield self
        finally:
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
    return Server(arguments, folder / "postgresql.log", options, answers, url=url, scratch=scratch)


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
    arguments = [program, configuration]
    return Server(arguments, folder / "pgbouncer.log", options, answers, url=url, scratch=scratch)


def redis_server(folder: Path, host: str = "127.0.0.1") -> Server:
    """A Redis server that survives a kill with what it held, as deploy/compose.yml runs it; not started yet."""
    program, port = find_program("redis-server"), free_port()
    arguments = [program, "--port", str(port), "--bind", host, "--protected-mode", "no", "--dir", str(folder)]
    arguments += ["--appendonly", "yes", "--save", ""]
    url, answers = f"redis://{host}:{port}/0", partial(listens, port, host)
    return Server(arguments, folder / "redis.log", answers=answers, url=url)


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[str]:
    """A Redis server; yields its URL."""
    with redis_server(folder).running() as server:
        yield server.url


def s3_server(folder: Path, host: str = "127.0.0.1") -> Server:
    """An S3 server (moto) that holds everything in memory, not started yet; `s3_variables` name it."""
    port = free_port()
    arguments = [BIN / "moto_server", "-H", host, "-p", str(port)]
    url, answers = f"http://{host}:{port}", partial(listens, port, host)
    return Server(arguments, folder / "s3.log", answers=answers, url=url)


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
    process: Process
    setup_output: str

    def manage(self, *arguments: str) -> str:
        return manage(self.environment, *arguments)

    def status(self) -> dict:
        """The answer of `/readyz`, or an empty one where nothing listens."""
        return status(self.url)

    def wait_ready(self) -> None:
        wait_until(lambda: self.status().get("state") == "ready", f"ready (see {self.log})", seconds=120)


def status(url: str) -> dict:
    """What `/readyz` of a web process says; empty where nothing listens."""
    with contextlib.suppress(OSError):
        return request(f"{url}/readyz").body
    return {}


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
