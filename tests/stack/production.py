"""Captioner as deploy/ runs it: nginx with TLS, web, workers and beat as processes on PostgreSQL, Redis and S3.

The configuration of nginx and gunicorn is that of deploy/, and so are the commands of workers and beat; what Docker's
engine would do (start processes, render nginx's templates) is done here.
"""

import atexit
import contextlib
import functools
import os
import re
import shutil
import ssl
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psycopg
import yaml
from psycopg.sql import SQL, Identifier

from tests import client
from tests.processes import BIN, ROOT, Process, find_program, free_port, listens, wait_until
from tests.stack import servers
from tests.stack.servers import Server

DEPLOY = ROOT / "deploy"
DOMAIN = "localhost"
SECRET_KEY = "only for tests: " + "0123456789abcdef" * 4
METRICS_TOKEN = "only-for-tests"
# As an image of ours would, nginx runs as somebody who owns nothing else.
_NGINX_USER = "nobody" if os.geteuid() == 0 else None


_SET_UP = """
from django.contrib.auth.models import User
from django.core.management import call_command
from captioner.captions.api_keys import api_key_create
call_command("setup", wait=60)
print("KEY", api_key_create(User.objects.get(username="admin"), "test")[1])
"""


@functools.cache
def static_files() -> str:
    """The folder of all static files as the image holds them, collected once for all sites."""
    folder = tempfile.TemporaryDirectory(prefix="captioner-static-")
    atexit.register(folder.cleanup)
    environment = {"PATH": os.environ["PATH"], "CAPTIONER_DATA_DIR": folder.name}
    servers.manage(environment, "collectstatic", "--no-input", "--verbosity", "0")
    return f"{folder.name}/static"


def compose_command(service: str) -> list[str | Path]:
    """The command of a service in deploy/compose.yml, with the programs of this environment."""
    compose = yaml.safe_load((DEPLOY / "compose.yml").read_text())
    program, *arguments = compose["services"][service]["command"]
    return [BIN / program, *arguments]


def certificates_make(folder: Path) -> Path:
    """An authority of our own, and a certificate by it for `DOMAIN`; returns the authority's certificate."""
    openssl = find_program("openssl")
    folder.mkdir()

    def run(*arguments: str | Path) -> None:
        subprocess.run([openssl, *arguments], cwd=folder, check=True, capture_output=True)

    (folder / "san").write_text(f"subjectAltName=DNS:{DOMAIN}")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    run("req", "-x509", *key, "-subj", "/CN=Test authority", "-keyout", "ca.key", "-out", "ca.pem")
    run("req", *key, "-subj", f"/CN={DOMAIN}", "-keyout", "privkey.pem", "-out", "request.pem")
    signing = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "san"]
    run("x509", "-req", "-in", "request.pem", *signing, "-out", "fullchain.pem")
    return folder / "ca.pem"


@dataclass
class Nginx:
    """nginx on deploy/nginx, its templates rendered the way its image does it."""

    folder: Path
    https_port: int
    http_port: int
    server: Server
    variables: dict[str, str]

    @property
    def url(self) -> str:
        return f"https://{DOMAIN}:{self.https_port}"

    @property
    def templates(self) -> Path:
        return self.folder / "etc" / "templates"

    def tls(self) -> ssl.SSLContext:
        """What trusts our authority."""
        return ssl.create_default_context(cafile=str(self.folder / "certificates" / "ca.pem"))

    def web_servers(self, *addresses: str) -> None:
        """Send new requests to these hosts only."""
        self._script("web-servers", *addresses)

    def renew(self) -> None:
        """Take up changed templates."""
        self._script("renew")

    def _script(self, name: str, *arguments: str) -> None:
        """Run a script of deploy/nginx the way deploy/upgrade does."""
        environment = self.variables | {
            "PATH": os.environ["PATH"],
            "NGINX_PREFIX": str(self.folder / "run"),
        }
        with (DEPLOY / "nginx" / name).open() as script:
            subprocess.run(
                ["sh", "-s", *arguments], stdin=script, env=environment, check=True, user=_NGINX_USER
            )


@contextlib.contextmanager
def nginx_running(web_server: str, **limits: str) -> Iterator[Nginx]:
    """nginx on loopback ports of its own, in a folder of its own: pytest keeps its folders from other users."""
    with tempfile.TemporaryDirectory(prefix="captioner-nginx-") as folder:
        nginx = _nginx_make(Path(folder), web_server, limits)
        with nginx.server.running():
            yield nginx


def _nginx_make(folder: Path, web_server: str, limits: dict[str, str]) -> Nginx:
    program = find_program("nginx", "/usr/sbin")
    etc, prefix = folder / "etc", folder / "run"
    for needed in (etc / "conf.d", prefix, folder / "acme"):
        needed.mkdir(parents=True)
    shutil.copy(DEPLOY / "nginx" / "nginx.conf", etc)
    for name in ("errors", "templates"):
        shutil.copytree(DEPLOY / "nginx" / name, etc / name)
    shutil.copy("/etc/nginx/mime.types", etc)
    ports = free_port(), free_port()
    variables = {
        "DOMAIN": DOMAIN,
        "WEB_SERVER": web_server,
        "HTTPS_PORT": str(ports[0]),
        "HTTP_PORT": str(ports[1]),
        "LIMIT_RATE": "1000r/s",
        "LIMIT_BURST": "1000",
        "LIMIT_CONNECTIONS": "200",
        "JOB_MAX_MEGABYTES": "300",
        "CAPTION_TIMEOUT_SECONDS": "20",
        "ACME_DIR": str(folder / "acme"),
        "CERTIFICATES_DIR": str(folder / "certificates"),
        "NGINX_DIR": str(etc),
        **limits,
    }
    for template in (etc / "templates").glob("*.template"):
        text = subprocess.run(
            [find_program("envsubst"), " ".join(f"${{{name}}}" for name in variables)],
            input=template.read_text(),
            env=variables,
            text=True,
            check=True,
            capture_output=True,
        ).stdout
        (etc / "conf.d" / template.stem).write_text(text)
    certificates_make(folder / "certificates")
    log = folder / "nginx.log"
    log.touch()
    if _NGINX_USER:
        for path in [*folder.rglob("*"), folder]:
            shutil.chown(path, _NGINX_USER)
    arguments = [program, "-p", f"{prefix}/", "-c", etc / "nginx.conf", "-g", "daemon off;"]
    subprocess.run([*arguments, "-t", "-q"], check=True, user=_NGINX_USER, stdout=subprocess.DEVNULL)
    answers = partial(listens, ports[0])
    server = Server(arguments, log, {"user": _NGINX_USER, "cwd": "/"}, answers)
    return Nginx(folder, *ports, server, variables)


@dataclass
class Web(Process):
    """A web process of gunicorn; it is ready some time after it was started."""

    host: str = "127.0.0.1"
    port: int = 0

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def is_ready(self) -> bool:
        return servers.status(f"http://{self.address}").get("state") == "ready"

    def wait_ready(self) -> None:
        wait_until(self.is_ready, f"ready (see {self.log})", seconds=120)


@dataclass
class Production:
    """The servers, one nginx, and the processes started so far."""

    folder: Path
    postgresql: Server
    redis: Server
    s3: Server
    environment: dict[str, str]
    nginx: Nginx
    stack: contextlib.ExitStack
    api_key: str
    webs: list[Web] = field(default_factory=list)
    services: dict[str, Process] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.nginx.url

    @property
    def key(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.api_key}"}

    def load(self, clients: int = 4) -> client.Load:
        return client.Load(self.url, clients, self.key)

    def manage(self, *arguments: str) -> str:
        return servers.manage(self.environment, *arguments)

    def web_add(self, host: str = "127.0.0.1", prefix: Sequence[str] = ()) -> Web:
        """One more web process with data of its own, like a container's; not started yet."""
        number, port = len(self.webs), free_port()
        environment = self.environment | {
            "CAPTIONER_DATA_DIR": str(self.folder / f"web-{number}"),
            "HOST": host,
            "PORT": str(port),
        }
        arguments = [*prefix, BIN / "gunicorn", "--config", DEPLOY / "gunicorn.conf.py"]
        options = {"cwd": ROOT, "env": environment}
        web = Web(arguments, self.folder / f"web-{number}.log", options, host=host, port=port)
        self.webs.append(web)
        self.stack.callback(web.stop)
        return web

    def service_start(self, name: str) -> None:
        """A worker or beat, by its command in deploy/compose.yml, with data of its own."""
        environment = self.environment | {"CAPTIONER_DATA_DIR": str(self.folder / name)}
        options = {"cwd": ROOT, "env": environment}
        service = Process(compose_command(name), self.folder / f"{name}.log", options)
        self.services[name] = self.stack.enter_context(service.running())

    def logged_ids(self) -> list[str]:
        """The ids of all captions in the database."""
        with psycopg.connect(self.postgresql.url) as database:
            return [str(row[0]) for row in database.execute("SELECT id FROM captioner_caption")]

    def row_counts(self) -> dict[str, int]:
        """The number of rows of every table but those that running processes write to unasked."""
        unasked = {"models_registry_servingprocess", "django_celery_beat_periodictask", "django_session"}
        with psycopg.connect(self.postgresql.url) as database:
            tables = database.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
            ).fetchall()
            count = SQL("SELECT count(*) FROM {}")
            return {
                name: database.execute(count.format(Identifier(name))).fetchone()[0]
                for (name,) in tables
                if name not in unasked
            }


@contextlib.contextmanager
def production(folder: Path, host: str = "127.0.0.1") -> Iterator[Production]:
    """Data servers and nginx running, set up, with an API key; web, workers and beat are still to be started."""
    with contextlib.ExitStack() as stack:
        postgresql = stack.enter_context(servers.postgresql_server(folder, host).running())
        redis = stack.enter_context(servers.redis_server(folder, host).running())
        s3 = stack.enter_context(servers.s3_server(folder, host).running())
        environment = {
            "PATH": os.environ["PATH"],
            "CAPTIONER_PRODUCTION": "true",
            "CAPTIONER_DATA_DIR": str(folder / "setup"),
            "SECRET_KEY": SECRET_KEY,
            "ALLOWED_HOSTS": DOMAIN,
            "DATABASE_URL": postgresql.url,
            "REDIS_URL": redis.url,
            "METRICS_TOKEN": METRICS_TOKEN,
            "OMP_NUM_THREADS": "2",
            # One key sends all the load here.
            "RATE_LIMIT_KEY": "off",
            "RATE_LIMIT_USER": "off",
            **servers.s3_variables(s3),
        }
        environment["CAPTIONER_STATIC_DIR"] = static_files()
        output = servers.manage(environment, "shell", "--no-imports", "-c", _SET_UP)
        nginx = stack.enter_context(nginx_running("127.0.0.1:9"))
        (key,) = re.findall(r"^KEY (\S+)$", output, re.MULTILINE)
        yield Production(folder, postgresql, redis, s3, environment, nginx, stack, key)


def request_id() -> str:
    return uuid.uuid4().hex
