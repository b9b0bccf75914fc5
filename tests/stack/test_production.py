"""What deploy/ promises, with the real servers: TLS, headers, limits, a journey, faults under load, restore."""

import contextlib
import hashlib
import http.client
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from tests import client
from tests.photos import draw_photo, draw_scene, zip_of
from tests.processes import wait_until
from tests.stack import figures, learning, production
from tests.stack.production import DEPLOY, DOMAIN, Production

pytestmark = pytest.mark.stack


@contextlib.contextmanager
def one_host(folder: Path) -> Iterator[Production]:
    """One host behind nginx that captions; workers and beat are still to be started."""
    with pytest.MonkeyPatch.context() as patch, production.production(folder) as site:
        patch.setenv("SSL_CERT_FILE", str(site.nginx.folder / "certificates" / "ca.pem"))
        web = site.web_add()
        site.nginx.web_servers(web.address)
        started = time.monotonic()
        web.start()
        while (answer := client.caption(site.url, draw_photo(0), **site.key)).status != 201:
            assert answer.status in {502, 503}, answer
            time.sleep(0.1)
        seconds = time.monotonic() - started
        figures.show(f"Cold start of a web process to its first caption over TLS: {seconds:.1f} s")
        yield site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Production]:
    """For tests that leave it as they found it."""
    with one_host(tmp_path_factory.mktemp("production")) as site:
        yield site


@pytest.fixture
def own_site(tmp_path: Path) -> Iterator[Production]:
    """For a test that breaks something."""
    with one_host(tmp_path) as site:
        yield site


# --- TLS and headers ---


@pytest.mark.parametrize(
    ("version", "accepted"), [("tls1", False), ("tls1_1", False), ("tls1_2", True), ("tls1_3", True)]
)
def test_tls_is_1_2_or_newer(site: Production, version: str, accepted: bool) -> None:
    result = subprocess.run(
        # Security level 0 lets this client offer what it would refuse itself.
        [
            *("openssl", "s_client", "-connect", f"127.0.0.1:{site.nginx.https_port}"),
            *("-servername", DOMAIN, f"-{version}", "-cipher", "DEFAULT@SECLEVEL=0"),
            *("-verify_return_error", "-CAfile", os.environ["SSL_CERT_FILE"]),
        ],
        input="",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode == 0) is accepted, result.stdout + result.stderr
    if not accepted:
        assert "alert protocol version" in result.stderr, "the server refused, not this client"


def test_strangers_names_get_no_certificate_and_no_answer(site: Production) -> None:
    context = ssl.create_default_context()
    with (
        socket.create_connection(("127.0.0.1", site.nginx.https_port)) as connection,
        pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"),
    ):
        context.wrap_socket(connection, server_hostname="elsewhere.example.org")
    with socket.create_connection(("127.0.0.1", site.nginx.http_port)) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: elsewhere.example.org\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):  # another way to be hung up on
            assert connection.recv(100) == b""


@pytest.mark.parametrize("is_tls", [True, False])
def test_a_header_that_never_ends_ends_the_connection(site: Production, is_tls: bool) -> None:
    """Within 10 s, where nginx would wait for a minute; with some to spare, for a busy machine."""
    port = site.nginx.https_port if is_tls else site.nginx.http_port
    with socket.create_connection(("127.0.0.1", port)) as connection:
        stream = site.nginx.tls().wrap_socket(connection, server_hostname=DOMAIN) if is_tls else connection
        stream.sendall(f"GET / HTTP/1.1\r\nHost: {DOMAIN}\r\nX-Slow: ".encode())
        stream.settimeout(40)
        try:
            assert stream.recv(100) == b""
        except TimeoutError:
            pytest.fail("nginx still waits")
        except OSError:
            pass  # reset


def test_plain_http_only_leads_to_https(site: Production) -> None:
    with socket.create_connection(("127.0.0.1", site.nginx.http_port)) as connection:
        connection.sendall(f"GET /captions?q=x HTTP/1.1\r\nHost: {DOMAIN}\r\n\r\n".encode())
        answer = connection.recv(1000).decode()
    assert answer.startswith("HTTP/1.1 301 ")
    assert f"Location: https://{DOMAIN}/captions?q=x\r\n" in answer


def response_headers(nginx: production.Nginx, path: str) -> list[tuple[str, str]]:
    """Every header as it is on the wire, doubled ones included."""
    connection = http.client.HTTPSConnection(DOMAIN, nginx.https_port, timeout=30, context=nginx.tls())
    connection.request("GET", path)
    return [(name.lower(), value) for name, value in connection.getresponse().getheaders()]


@pytest.mark.parametrize("path", ["/login", "/api/v1/captions", "/api/docs", "/nothing-here"])
def test_security_headers_come_once_each(site: Production, path: str) -> None:
    headers = response_headers(site.nginx, path)
    names = [name for name, _ in headers]
    values = dict(headers)
    lists = {"set-cookie", "vary"}  # which may come in several parts
    assert not {name for name in names if names.count(name) > 1} - lists
    (seconds,) = re.findall(r"max-age=(\d+)", values["strict-transport-security"])
    assert int(seconds) >= 180 * 24 * 3600
    assert values["x-content-type-options"] == "nosniff"
    assert values["x-frame-options"] == "DENY"
    assert values["referrer-policy"] == "same-origin"
    assert values["server"] == "nginx", "no version"
    policy = values["content-security-policy"]
    assert "default-src 'none'" in policy
    assert (
        "unsafe-inline" not in policy.replace("style-src 'self' 'unsafe-inline'", "") or path == "/api/docs"
    )
    for name, value in headers:
        if name == "set-cookie":
            assert {"Secure", "SameSite=Lax"} <= {part.strip() for part in value.split(";")}, value


def test_metrics_are_not_for_the_outside(site: Production) -> None:
    assert client.request(f"{site.url}/metrics").status == 404


def test_alerts_and_dashboard_ask_for_metrics_that_exist(site: Production) -> None:
    token = f"Bearer {production.METRICS_TOKEN}"
    exposed = client.request(f"http://{site.webs[0].address}/metrics", Authorization=token).body.decode()
    files = [DEPLOY / "monitoring/alerts.yml", *(DEPLOY / "monitoring/grafana/dashboards").glob("*.json")]
    asked = {name for file in files for name in re.findall(r"captioner_[a-z_]+", file.read_text())}
    assert len(asked) >= 10
    assert not {name for name in asked if not re.search(rf"^{name}\b", exposed, re.MULTILINE)}


# --- Limits ---


def test_the_largest_photo_passes_nginx_and_a_larger_body_is_a_problem_document(site: Production) -> None:
    largest = client.caption(site.url, bytes(16 * 2**20), **site.key)
    assert largest.status == 415, "refused by the application, as no photo"
    too_large = client.caption(site.url, bytes(24 * 2**20 + 1), **site.key)
    assert too_large.status == 413
    assert too_large.headers["Content-Type"] == "application/problem+json"
    assert too_large.body["status"] == 413


def test_too_many_requests_or_connections_are_429(site: Production) -> None:
    limits = {"LIMIT_RATE": "1r/s", "LIMIT_BURST": "8", "LIMIT_CONNECTIONS": "2"}
    with production.nginx_running(site.webs[0].address, **limits) as nginx:
        answers = slow_uploads(nginx, "/api/v1/captions", 10, count=5)
        assert sum(answer.startswith(b"HTTP/1.1 429 ") for answer in answers) == 3, answers
        assert b"application/problem+json" in answers[0]
        assert b"Retry-After: 1" in answers[0]
        statuses = [page_status(nginx) for _ in range(12)]
    assert set(statuses) == {200, 429}


WAITING = b"waiting for the body"


def slow_uploads(nginx: production.Nginx, path: str, size: int, *, count: int) -> list[bytes]:
    """Answers, sorted, to requests at once that announce a body of `size` bytes and send none of it."""

    def slow_upload(_: int) -> bytes:
        head = f"POST {path} HTTP/1.1\r\nHost: {DOMAIN}\r\nContent-Length: {size}\r\n\r\n"
        with (
            socket.create_connection(("127.0.0.1", nginx.https_port)) as connection,
            nginx.tls().wrap_socket(connection, server_hostname=DOMAIN) as stream,
        ):
            stream.sendall(head.encode())
            stream.settimeout(2)
            try:
                return stream.recv(1000)
            except TimeoutError:
                return WAITING

    with ThreadPoolExecutor(count) as pool:
        return sorted(pool.map(slow_upload, range(count)))


@pytest.mark.parametrize("path", ["/", "/uploads/x/1", "/api/v1/jobs"])
def test_few_large_bodies_at_a_time_are_taken_from_one_address(site: Production, path: str) -> None:
    """They wait where nginx has little room; so nobody fills it, and small ones go on."""
    large = slow_uploads(site.nginx, path, 290 * 2**20, count=4)
    assert [answer[:12] for answer in large] == [b"HTTP/1.1 429"] * 2 + [WAITING[:12]] * 2
    small = slow_uploads(site.nginx, path, 16 * 2**20, count=4)
    assert small == [WAITING] * 4


def test_the_largest_job_is_the_same_for_nginx_and_the_application(
    site: Production, monkeypatch: pytest.MonkeyPatch
) -> None:
    with production.nginx_running(site.webs[0].address, JOB_MAX_MEGABYTES="1") as nginx:
        monkeypatch.setenv("SSL_CERT_FILE", str(nginx.folder / "certificates" / "ca.pem"))
        smaller, larger = (
            client.request(
                f"{nginx.url}/api/v1/jobs", bytes(size), Content_Type="application/zip", **site.key
            )
            for size in (2**20, 2**20 + 1)
        )
    assert smaller.status == 415, "refused by the application, as no archive"
    assert larger.status == 413
    assert larger.body["type"] == "urn:captioner:problem:request-too-large"


def test_changed_templates_are_taken_up_while_nginx_serves_and_broken_ones_are_not() -> None:
    with production.nginx_running("127.0.0.1:9") as nginx:
        template = nginx.templates / "captioner.conf.template"
        text = template.read_text().replace('return 200 "alive', 'return 200 "changed')
        (nginx.templates / "more.conf.template").write_text("# ${DOMAIN}")
        with socket.create_connection(("127.0.0.1", nginx.http_port)) as under_way:
            under_way.sendall(b"GET /healthz HTTP/1.1\r\nHost: probe\r\n")
            template.write_text(text)
            nginx.renew()
            wait_until(lambda: "changed" in answer_to_probe(nginx), "the new template is served")
            under_way.sendall(b"\r\n")
            assert b"alive" in under_way.recv(1000), "on the configuration it began with"
        configured = rendered(nginx)
        assert configured["more.conf"] == f"# {DOMAIN}"

        template.write_text("nothing nginx knows;")
        (nginx.templates / "more.conf.template").unlink()
        with pytest.raises(subprocess.CalledProcessError):
            nginx.renew()
        assert rendered(nginx) == configured, "what a later reload takes up"

        template.write_text(text)
        nginx.renew()
        assert rendered(nginx).keys() == configured.keys() - {"more.conf"}
        assert "changed" in answer_to_probe(nginx)


def answer_to_probe(nginx: production.Nginx) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", nginx.http_port, timeout=30)
    connection.request("GET", "/healthz")
    return connection.getresponse().read().decode()


def rendered(nginx: production.Nginx) -> dict[str, str]:
    return {path.name: path.read_text() for path in (nginx.folder / "etc" / "conf.d").iterdir()}


def page_status(nginx: production.Nginx) -> int:
    connection = http.client.HTTPSConnection(DOMAIN, nginx.https_port, timeout=30, context=nginx.tls())
    connection.request("GET", "/healthz")
    response = connection.getresponse()
    assert response.status == 200 or b"A little slower" in response.read()
    return response.status


# --- The journey ---


def test_a_photo_is_captioned_rated_and_shown_over_tls(site: Production) -> None:
    answer = client.caption_multipart(site.url, draw_photo(1), **site.key)
    assert answer.status == 201
    assert answer.body["links"]["self"].startswith(site.url), "links lead back through nginx"
    feedback = client.request(
        answer.body["links"]["feedback"], b'{"rating": 7}', Content_Type="application/json", **site.key
    )
    assert feedback.status == 201
    assert client.request(answer.body["links"]["photo"], **site.key).body.startswith(b"\xff\xd8")
    assert client.request(answer.body["links"]["self"]).status == 401, "nobody comes in without a key"
    assert client.caption(site.url, draw_photo(1)).status == 401


def test_a_request_keeps_its_id_from_nginx_to_the_answer(site: Production) -> None:
    name = production.request_id()
    answer = client.request(f"{site.url}/api/v1/captions", X_Request_ID=name, **site.key)
    assert answer.headers["X-Request-ID"] == name
    log = site.nginx.folder / "nginx.log"  # written once the answer is out
    wait_until(lambda: f'"request_id":"{name}"' in log.read_text(), "nginx logs the request under its id")


# --- Stops and faults under load ---


def captions_flow(load: client.Load, number: int = 10) -> None:
    """Wait until `number` more captions were answered."""
    goal = len(load.answered()) + number
    wait_until(lambda: len(load.answered()) >= goal, f"{number} more captions ({load.statuses()})")


def show_answers(what: str, load: client.Load) -> None:
    statuses = ", ".join(f"{count} x {status}" for status, count in sorted(load.statuses().items()))
    figures.show(f"{what}: {statuses}; {load.seconds_without():.1f} s without captions")


def assert_nothing_lost(site: Production, load: client.Load) -> None:
    logged = site.logged_ids()
    assert load.answered() <= set(logged), "every caption somebody was given is in the log"
    assert len(logged) == len(set(logged))
    for answer in load.answers:
        if answer.status != 201:
            assert answer.headers["Content-Type"] == "application/problem+json", answer
            assert answer.headers["Retry-After"], answer
    assert not load.broken


def test_a_stopped_web_process_loses_nothing_it_accepted(own_site: Production) -> None:
    site = own_site
    (web,) = site.webs
    with site.load() as load:
        captions_flow(load)
        web.stop()
        wait_until(lambda: load.statuses()[502] > 0, "nginx found nobody")
        web.start()
        web.wait_ready()
        captions_flow(load)
    assert_nothing_lost(site, load)
    assert set(load.statuses()) <= {201, 502, 503}, "its caption, or that nobody is there or ready yet"
    show_answers("TERM of web and a new start, 4 clients", load)


def test_captions_are_answered_while_redis_is_dead_and_queued_work_is_done_after(
    own_site: Production,
) -> None:
    site = own_site
    site.service_start("worker-io")
    site.service_start("beat")
    with site.load() as load:
        job = job_send(site, [draw_scene(number) for number in range(801, 841)])
        site.redis.kill()
        captions_flow(load, 20)
        assert set(load.statuses()) == {201}
        site.redis.start()
        # A message on its way when Redis died is not seen again for hours; beat's sweep misses its photos.
        wait_until(lambda: job_of(site, job)["status"] == "finished", "queued work done", 180)
        captions_flow(load)
    assert job_of(site, job)["photos"]["captioned"] == 40
    assert set(load.statuses()) == {201}
    assert_nothing_lost(site, load)
    show_answers("Redis killed and started again", load)


def test_a_database_restart_costs_seconds_of_503_and_no_caption(own_site: Production) -> None:
    site = own_site
    with site.load() as load:
        captions_flow(load)
        site.postgresql.kill(
            signal.SIGQUIT
        )  # what `pg_ctl stop -m immediate` sends: no checkpoint, no goodbye
        site.postgresql.start()
        captions_flow(load, 20)
    assert set(load.statuses()) <= {201, 503}
    assert_nothing_lost(site, load)
    show_answers("PostgreSQL restarted at once (-m immediate)", load)


def test_a_stopped_store_is_a_503_that_logs_nothing_and_passes(own_site: Production) -> None:
    site = own_site
    with site.load() as load:
        captions_flow(load)
        site.s3.kill()
        wait_until(lambda: load.statuses()[503] >= 4, "captions refused")
        refused = [answer.body for answer in list(load.answers) if answer.status == 503]
        assert {body["type"] for body in refused} == {"urn:captioner:problem:storage-unavailable"}
        site.s3.start()
        site.manage("setup")  # this store forgets when it stops
        captions_flow(load)
    assert set(load.statuses()) == {201, 503}
    assert_nothing_lost(site, load)
    show_answers("S3 server killed and started again", load)
    with psycopg.connect(site.postgresql.url) as database:
        orphans = database.execute(
            "SELECT count(*) FROM captioner_photo p WHERE NOT EXISTS"
            " (SELECT FROM captioner_caption c WHERE c.photo_id = p.id)"
        ).fetchone()
    assert orphans == (0,), "a refused photo leaves no row"


# --- The whole line ---

CORRECTED = 150  # photos: mosaics look much alike, and what looks like a photo that judges does not teach


@pytest.fixture
def tiles_learned(own_site: Production) -> str:
    """The version that the trainer made of people's corrections, and a reviewer took."""
    site = own_site
    (starter,) = {
        client.caption(site.url, draw_scene(n), **site.key).body["model"]["version"] for n in range(2)
    }
    for service in ("worker-io", "worker-train", "beat"):
        site.service_start(service)
    for number in range(CORRECTED):
        learning.correct(site.url, number, **site.key)
    learning.approve(site.manage)
    site.manage("train", "now")
    run = learning.run_finished(site.postgresql.url, site.folder / "worker-train.log")
    assert run["candidate"] != starter
    assert served(site) == starter, "a few photos prove nothing, so a reviewer decides"
    learning.overrule(site.manage)
    return run["candidate"]


def served(site: Production) -> str:
    return client.caption(site.url, draw_scene(600), **site.key).body["model"]["version"]


def test_corrections_become_a_version_that_survives_the_loss_of_everything(
    own_site: Production, tiles_learned: str, tmp_path: Path
) -> None:
    """Upload, caption, feedback, approval, training, publication, serving, backup, destruction, restore."""
    site = own_site
    wait_until(lambda: served(site) == tiles_learned, "the learned version is served")
    published = learning.version_objects(site.environment, tiles_learned)
    learning.assert_version_is_whole(published)
    photo = draw_scene(700)
    before = client.caption(site.url, photo, **site.key)
    assert "tiles" in before.body["caption"], "a photo nobody corrected"
    site.services["worker-io"].stop()
    job = job_send(site, [draw_scene(number) for number in range(701, 705)])
    ids = sorted(site.logged_ids())
    photos, counts = photo_hashes(site, ids), site.row_counts()
    backups = tmp_path / "backups"
    script(site, DEPLOY / "backup", backups)
    client.caption(site.url, draw_scene(800), **site.key)
    assert site.row_counts() != counts

    destroy(site)
    restore(site, backups)

    assert site.row_counts() == counts, "what was backed up, and nothing else"
    assert photo_hashes(site, ids) == photos
    assert learning.version_objects(site.environment, tiles_learned) == published
    again = client.caption(site.url, photo, **site.key)
    assert again.body["caption"] == before.body["caption"]
    assert again.body["model"]["version"] == tiles_learned, "the same champion"
    site.service_start("worker-io")
    site.service_start("beat")  # whose sweep finds the job's photos
    wait_until(lambda: job_of(site, job)["status"] == "finished", "the job of before goes on", 120)
    assert job_of(site, job)["photos"]["captioned"] == 4


def job_send(site: Production, photos: list[bytes]) -> str:
    """Where to ask about a job of these photos."""
    headers = {"Content_Type": "application/zip", **site.key}
    files = {f"{number}.jpg": photo for number, photo in enumerate(photos)}
    answer = client.request(f"{site.url}/api/v1/jobs", zip_of(files), **headers)
    assert answer.status == 202, answer
    return answer.body["links"]["self"]


def job_of(site: Production, address: str) -> dict:
    return client.request(address, **site.key).body


def destroy(site: Production) -> None:
    """All that a machine holds: processes, tables, objects (this store forgets when killed), queue, cached weights."""
    site.webs[0].stop()
    for service in site.services.values():
        service.stop()
    site.redis.kill()
    shutil.rmtree(site.folder / "appendonlydir")
    site.redis.start()
    site.s3.kill()
    site.s3.start()
    with psycopg.connect(site.postgresql.url) as database:
        database.execute("DROP SCHEMA public CASCADE")
        database.execute("CREATE SCHEMA public")
    for service in ("web-0", *site.services):
        shutil.rmtree(site.folder / service)
    site.manage("setup", "--wait", "10")  # as a new machine has it after deploy/install
    assert site.logged_ids() == []


def restore(site: Production, backups: Path) -> None:
    """The one backup, and then the services that deploy/compose.yml starts."""
    (dump,) = backups.glob("*.dump")
    started = time.monotonic()
    output = script(site, DEPLOY / "restore", "--replace", dump)
    assert "all rows there" in output
    assert "sent again" not in output, "every photo of the job is there"
    rows = site.row_counts()["captioner_caption"]
    figures.show(f"Restore of {rows} captions: {time.monotonic() - started:.1f} s")
    site.webs[0].start()
    site.webs[0].wait_ready()


def script(site: Production, *arguments: str | Path) -> str:
    folders = [str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    environment = site.environment | {
        "PATH": os.pathsep.join([*folders, site.environment["PATH"]]),
        "PYTHON": sys.executable,
    }
    result = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def photo_hashes(site: Production, ids: list[str]) -> list[str]:
    pages = (client.request(f"{site.url}/api/v1/captions/{i}/photo", **site.key).body for i in ids)
    return [hashlib.sha256(page).hexdigest() for page in pages]
