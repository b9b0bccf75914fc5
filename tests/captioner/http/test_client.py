import socket
from collections.abc import Iterator

import pytest
from django.test import RequestFactory

from captioner.http.client import client_gone


@pytest.fixture
def connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The server's and the client's end of one TCP connection."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        accepted, _ = server.accept()
        with accepted:
            yield accepted, client


def is_gone(server_end: socket.socket) -> bool:
    return client_gone(RequestFactory().get("/", **{"gunicorn.socket": server_end}))


def test_waiting_client_is_there(connection: tuple[socket.socket, socket.socket]) -> None:
    assert is_gone(connection[0]) is False


def test_client_that_sent_its_next_request_is_there(connection: tuple[socket.socket, socket.socket]) -> None:
    server_end, client_end = connection
    client_end.sendall(b"GET / HTTP/1.1\r\n")
    assert is_gone(server_end) is False
    assert server_end.recv(3) == b"GET"


def test_client_that_closed_is_gone(connection: tuple[socket.socket, socket.socket]) -> None:
    server_end, client_end = connection
    client_end.close()
    assert is_gone(server_end) is True


def test_nobody_is_gone_where_the_server_shows_no_socket() -> None:
    assert client_gone(RequestFactory().get("/")) is False
