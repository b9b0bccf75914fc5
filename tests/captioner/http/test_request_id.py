import logging

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory

from captioner.http.middleware.request_id import RequestIdFilter, RequestIdMiddleware


def answered_id(sent: str | None) -> str:
    headers = {} if sent is None else {"X-Request-ID": sent}
    middleware = RequestIdMiddleware(lambda _request: HttpResponse())
    return middleware(RequestFactory().get("/", headers=headers)).headers["X-Request-ID"]


@pytest.mark.parametrize("sent", ["7", "0b7e-11/a_b.c:d=", "x" * 128])
def test_given_id_comes_back(sent: str) -> None:
    assert answered_id(sent) == sent


@pytest.mark.parametrize("sent", [None, "", "two words", "line\nfeed", "é", "x" * 129])
def test_missing_or_unfit_id_is_replaced(sent: str | None) -> None:
    first, second = answered_id(sent), answered_id(sent)
    assert len(first) == 32
    assert first != second


def test_log_lines_carry_the_id() -> None:
    record = logging.LogRecord("captioner", logging.INFO, __file__, 1, "hello", None, None)

    def view(request: HttpRequest) -> HttpResponse:
        RequestIdFilter().filter(record)
        return HttpResponse()

    RequestIdMiddleware(view)(RequestFactory().get("/", headers={"X-Request-ID": "abc"}))
    assert record.request_id == "abc"


def test_what_django_logs_of_an_answer_carries_the_id_too(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.handler.addFilter(RequestIdFilter())
    client.get("/api/v1/nothing", headers={"X-Request-ID": "abc"})
    [record] = [record for record in caplog.records if record.name == "django.request"]
    assert record.request_id == "abc"


def test_every_answer_carries_it(client: Client) -> None:
    response = client.get("/api/v1/nothing", headers={"X-Request-ID": "abc"})
    assert response.headers["X-Request-ID"] == "abc"
