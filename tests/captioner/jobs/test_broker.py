"""The broker made of files: a damaged message stops nobody, and none is seen before it is whole."""

import errno
from collections.abc import Iterator
from pathlib import Path
from queue import Empty

import pytest
from kombu import Connection
from kombu.exceptions import ChannelError

from captioner.celery import app
from captioner.jobs import broker


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("messages", "control"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.fixture
def connection(folder: Path) -> Iterator[Connection]:
    options = {
        "data_folder_in": str(folder / "messages"),
        "data_folder_out": str(folder / "messages"),
        "control_folder": str(folder / "control"),
    }
    broker.Transport.global_state.clear()  # what this process has bound in other folders
    with app.connection_for_write("filesystem://localhost/", transport_options=options) as made:
        yield made


def received(connection: Connection, queue: str) -> list[object]:
    found = []
    with connection.SimpleQueue(queue) as simple:
        while True:
            try:
                message = simple.get(block=False)
            except Empty:
                return found
            found.append(message.payload)
            message.ack()


@pytest.mark.parametrize("queue", ["celery", "training"])
def test_messages_come_in_order_and_leave_nothing(connection: Connection, folder: Path, queue: str) -> None:
    assert isinstance(connection.transport, broker.Transport)
    with connection.SimpleQueue(queue) as simple:
        for number in range(3):
            simple.put({"number": number})
    assert len(list((folder / "messages").iterdir())) == 3
    assert received(connection, queue) == [{"number": number} for number in range(3)]
    assert list((folder / "messages").iterdir()) == []


@pytest.mark.parametrize("queue", ["celery", "training"])
@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"{}",
        b'{"properties": {}}',
        b'{"properties": 1, "body": ""}',
        bytes(400),
    ],
)
def test_a_damaged_message_is_put_aside(
    connection: Connection, folder: Path, damage: bytes, queue: str
) -> None:
    bad = folder / "messages" / f"0_bad.{queue}.msg"
    with connection.SimpleQueue(queue) as simple:
        simple.put({"number": 1})
        bad.write_bytes(damage)
    assert received(connection, queue) == [{"number": 1}]
    assert [path.name for path in (folder / "messages").iterdir()] == [f"{bad.name}.damaged"]
    assert (folder / "messages" / f"{bad.name}.damaged").read_bytes() == damage


def test_a_message_cut_in_the_middle(connection: Connection, folder: Path) -> None:
    with connection.SimpleQueue("celery") as simple:
        simple.put({"number": 1})
        [cut] = (folder / "messages").iterdir()
        cut.write_bytes(cut.read_bytes()[:-20])
        simple.put({"number": 2})
    assert received(connection, "celery") == [{"number": 2}]


def test_what_cannot_be_written_leaves_nothing(
    connection: Connection, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, text: str) -> int:
        self.write_bytes(text.encode()[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with connection.SimpleQueue("celery") as simple, pytest.raises(ChannelError):
        simple.put({"number": 1})
    assert list((folder / "messages").iterdir()) == []


@pytest.mark.parametrize("damage", [b"", b"[", b"\xff", b"[1]"])
def test_a_damaged_table_of_queues_is_written_anew(
    connection: Connection, folder: Path, damage: bytes
) -> None:
    with connection.SimpleQueue("celery") as simple:
        simple.put({"number": 1})
    for table in (folder / "control").iterdir():
        table.write_bytes(damage)
    with connection.SimpleQueue("celery") as simple:
        simple.put({"number": 2})
    broker.Transport.global_state.clear()  # as in a process that starts
    with connection.SimpleQueue("celery") as simple:
        simple.put({"number": 3})
    assert received(connection, "celery") == [{"number": number} for number in (1, 2, 3)]
