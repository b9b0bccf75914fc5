"""Log lines as JSON."""

import json
import logging
import sys

import pytest

from captioner.http.middleware import request_id
from captioner.http.middleware.request_id import RequestIdFilter
from captioner.ops.logs import JsonFormatter, ProbeFilter


def record_of(
    message: str = "hello %s", *args: object, name: str = "captioner", **options
) -> logging.LogRecord:
    return logging.LogRecord(name, logging.INFO, __file__, 1, message, args, options.get("exc_info"))


def line_of(record: logging.LogRecord) -> dict:
    text = JsonFormatter().format(record)
    assert "\n" not in text
    return json.loads(text)


def test_a_line_is_one_object() -> None:
    line = line_of(record_of("hello %s", "a\nb é"))
    assert line["message"] == "hello a\nb é"
    assert (line["level"], line["logger"]) == ("INFO", "captioner")
    assert line["time"].endswith("+00:00")
    assert "request_id" not in line


def test_a_line_of_a_request_carries_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    record = record_of("hello")
    record.request_id = "abc"
    assert line_of(record)["request_id"] == "abc"


def test_a_line_of_a_task_carries_the_tasks_id() -> None:
    import contextvars

    def run() -> dict:
        request_id.task_begin("task-7")
        record = record_of("hello")
        RequestIdFilter().filter(record)
        return line_of(record)

    line = contextvars.copy_context().run(run)
    assert line["task_id"] == "task-7"
    assert "request_id" not in line


def test_an_exception_is_told_within_its_line() -> None:
    try:
        raise ZeroDivisionError("oh")
    except ZeroDivisionError:
        line = line_of(record_of("failed", exc_info=sys.exc_info()))
    assert "ZeroDivisionError: oh" in line["exception"]


def access_record(path: str, status: str) -> logging.LogRecord:
    atoms = {
        "m": "GET",
        "U": path,
        "s": status,
        "B": 12,
        "h": "10.0.0.1",
        "{x-request-id}o": "abc",
        "L": "0.25",
    }
    return record_of('"%(m)s %(U)s" %(s)s', atoms, name="gunicorn.access")


def test_an_access_line_has_fields_to_search_by() -> None:
    line = line_of(access_record("/captions/", "200"))
    assert (line["method"], line["path"], line["status"]) == ("GET", "/captions/", "200")
    assert (line["seconds"], line["request_id"]) == (0.25, "abc")


def test_probes_are_worth_a_line_when_they_fail() -> None:
    assert not ProbeFilter().filter(access_record("/healthz", "200"))
    assert ProbeFilter().filter(access_record("/readyz", "503"))
    assert ProbeFilter().filter(access_record("/", "200"))
