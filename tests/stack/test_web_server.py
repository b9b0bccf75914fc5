"""What clients may do to the web server itself: real gunicorn with deploy/gunicorn.conf.py, and no model."""

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path

import pytest

from tests import client
from tests.processes import BIN, ROOT, free_port, process, wait_until
from tests.stack import servers

pytestmark = pytest.mark.stack

HEAD = b"POST /api/v1/captions HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Where a web server with two threads listens that waits two seconds for silent clients."""
    folder, port = tmp_path_factory.mktemp("web"), free_port()
    configuration = ROOT / "tests" / "stack" / "gunicorn_impatient.py"
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "CAPTIONER_DATA_DIR": str(folder / "var"),
        "PORT": str(port),
        "WEB_THREADS": "2",
    }
    servers.manage(environment, "migrate", "--verbosity", "0")
    arguments = [BIN / "gunicorn", "--config", configuration, "--chdir", ROOT]
    with process(arguments, folder / "web.log", env=environment, cwd=ROOT):
        wait_until(lambda: is_alive(port), f"web answers (see {folder}/web.log)")
        yield port


def is_alive(port: int) -> bool:
    with contextlib.suppress(OSError):
        return client.request(f"http://127.0.0.1:{port}/healthz").status == 200
    return False


def talk(port: int, sent: bytes, *, hang_up: bool = False) -> bytes:
    """What comes back for `sent` until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(sent)
        if hang_up:
            connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize(
    "body", [b"ZZ\r\nabc", b"3\r\nabcdef\r\n0\r\n\r\n", b"-1\r\n\r\n", b"\r\n", b"3;\x01\r\nabc\r\n0\r\n\r\n"]
)
def test_malformed_chunks_are_the_clients_fault(port: int, body: bytes) -> None:
    answer = talk(port, CHUNKED + body)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"urn:captioner:problem:parse-error" in answer
    assert b"chunks of the request body are malformed" in answer


@pytest.mark.parametrize("body", [b"", b"5", b"5\r\nab", b"5\r\nabcde\r\n", b"5\r\nabcde\r\n0\r\n"])
def test_a_client_that_hangs_up_in_the_middle_is_told_so(port: int, body: bytes) -> None:
    assert talk(port, CHUNKED + body, hang_up=True).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "sent",
    [b"POST /api/v1/cap", HEAD + b"Content-Length: 1000\r\n\r\nab", CHUNKED + b"5\r\nab"],
    ids=["head", "body", "chunk"],
)
def test_clients_that_fall_silent_do_not_stop_the_others(port: int, sent: bytes) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(6):
            silent = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            silent.sendall(sent)
        wait_until(lambda: is_alive(port), "other clients are answered", seconds=30)


def test_variables_that_cannot_work_end_the_server_at_once(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "CAPTIONER_DATA_DIR": str(tmp_path), "WEB_THREADS": "0"}
    arguments = [BIN / "gunicorn", "--config", "deploy/gunicorn.conf.py"]
    result = subprocess.run(
        arguments, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode != 0
    assert "WEB_THREADS=0 is too small; the least allowed is 1." in result.stderr


@pytest.mark.parametrize("size", [10, 160_000, 2_000_000])
@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("POST /api/v1/captions HTTP/1.1\r\nContent-Type: text/plain", 415),
        ("POST /api/v1/captions HTTP/1.1\r\nAuthorization: Bearer unknown\r\nContent-Type: image/jpeg", 401),
        ("PUT /api/v1/captions HTTP/1.1\r\nContent-Type: image/jpeg", 405),
        ("POST /api/v1/nothing HTTP/1.1\r\nContent-Type: image/jpeg", 404),
    ],
)
def test_what_is_refused_unread_says_whether_the_connection_goes_on(
    port: int, line: str, status: int, size: int
) -> None:
    """A client that believes the header loses no request."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(
            f"{line}\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode() + bytes(size)
        )
        answer = HTTPResponse(connection)
        answer.begin()
        answer.read()
        assert answer.status == status
        assert answer.will_close == (size > 1_000_000)
        if not answer.will_close:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            following = HTTPResponse(connection)
            following.begin()
            assert following.status == 200
