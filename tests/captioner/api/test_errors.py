"""Exceptions become problem details, in one place."""

import pytest
from django.core.exceptions import (
    PermissionDenied,
    RequestDataTooBig,
    SuspiciousOperation,
    TooManyFieldsSent,
    TooManyFilesSent,
)
from django.db import OperationalError
from django.http import Http404
from django.http.multipartparser import MultiPartParserError
from django.test import Client, RequestFactory
from rest_framework import exceptions as rest

from captioner.api.exception_handler import rest_problem_from
from captioner.exceptions import (
    ClientGone,
    DeadlineExceeded,
    InvalidFeedback,
    InvalidImage,
    ModelUnavailable,
    Overloaded,
)
from captioner.http.problems import bad_request, problem_from, server_error
from tests.conftest import FakeEngine

URL = "/api/v1/captions"


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        (InvalidImage("x", reason="too_large"), "invalid-image", 413),
        (InvalidImage("x", reason="not_an_image"), "invalid-image", 415),
        (InvalidImage("x", reason="empty"), "invalid-image", 422),
        (InvalidImage("x", reason="too_many_pixels"), "invalid-image", 422),
        (InvalidImage("x", reason="truncated"), "invalid-image", 422),
        (InvalidImage("x", reason="corrupt"), "invalid-image", 422),
        (InvalidFeedback("x", field="rating"), "invalid-fields", 422),
        (Overloaded("x", retry_after=1.0), "overloaded", 429),
        (DeadlineExceeded("x"), "deadline-exceeded", 504),
        (ModelUnavailable("x"), "model-unavailable", 503),
        (ClientGone("x"), "client-gone", 400),
        (Http404(), "not-found", 404),
        (PermissionDenied(), "permission-denied", 403),
        (RequestDataTooBig(), "request-too-large", 413),
        (TooManyFieldsSent("x"), "bad-request", 400),
        (TooManyFilesSent("x"), "bad-request", 400),
        (SuspiciousOperation("x"), "bad-request", 400),
        (MultiPartParserError("x"), "bad-request", 400),
        (OperationalError("x"), "database-unavailable", 503),
        (rest.NotAuthenticated(), "not-authenticated", 401),
        (rest.AuthenticationFailed(), "authentication-failed", 401),
        (rest.PermissionDenied(), "permission-denied", 403),
        (rest.NotFound(), "not-found", 404),
        (rest.MethodNotAllowed("PUT"), "method-not-allowed", 405),
        (rest.ParseError(), "parse-error", 400),
        (rest.UnsupportedMediaType("text/plain"), "unsupported-media-type", 415),
        (rest.Throttled(wait=3), "throttled", 429),
        (rest.ValidationError({"rating": ["x"]}), "invalid-fields", 422),
    ],
)
def test_kind_and_status_of_each_error(error: Exception, kind: str, status: int) -> None:
    problem = rest_problem_from(error)
    assert (problem.kind, problem.status) == (kind, status)
    assert problem.detail
    assert problem.body()["type"] == f"urn:captioner:problem:{kind}"
    assert problem.body()["status"] == problem.response().status_code == status
    assert problem.response().headers["Content-Type"] == "application/problem+json"


def test_defects_are_no_problems() -> None:
    assert rest_problem_from(ZeroDivisionError("x")) is None


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (Overloaded("x", retry_after=0.0), 1),
        (Overloaded("x", retry_after=0.2), 1),
        (Overloaded("x", retry_after=2.1), 3),
        (rest.Throttled(wait=7.5), 8),
    ],
)
def test_retry_after_is_in_whole_seconds_rounded_up(error: Exception, seconds: int) -> None:
    problem = rest_problem_from(error)
    assert problem.headers == {"Retry-After": str(seconds)}
    assert problem.extensions == {"retry_after": seconds}


@pytest.mark.parametrize("error", [ModelUnavailable("x"), OperationalError("x")])
def test_what_will_be_back_says_when_to_try_again(error: Exception) -> None:
    assert int(problem_from(error).headers["Retry-After"]) >= 1


def test_details_of_the_database_stay_inside() -> None:
    assert "secret" not in problem_from(OperationalError("connection to secret-host failed")).detail


def test_nested_fields_are_named_by_path() -> None:
    problem = rest_problem_from(rest.ValidationError({"outer": {"inner": ["Too big.", "Too odd."]}}))
    assert problem.extensions["errors"] == [
        {"field": "outer.inner", "detail": "Too big."},
        {"field": "outer.inner", "detail": "Too odd."},
    ]
    assert problem.detail == "outer.inner: Too big. outer.inner: Too odd."


# --- Seen from outside --------------------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Overloaded("The queue is full.", retry_after=2.5), 429),
        (DeadlineExceeded("Too late."), 504),
        (ModelUnavailable("Loading."), 503),
        (OperationalError("gone"), 503),
    ],
)
def test_errors_of_the_engine_are_answered(
    client: Client, fake_engine: FakeEngine, photo_bytes: bytes, error: Exception, status: int
) -> None:
    fake_engine.error = error
    response = client.generic("POST", URL, photo_bytes, content_type="image/jpeg")
    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/problem+json"


@pytest.mark.django_db
def test_defect_is_a_500_that_tells_nothing(fake_engine: FakeEngine, photo_bytes: bytes) -> None:
    client = Client(raise_request_exception=False)
    fake_engine.error = ZeroDivisionError("secret")
    response = client.generic("POST", URL, photo_bytes, content_type="image/jpeg")
    assert response.status_code == 500
    assert response.headers["Content-Type"] == "application/problem+json"
    assert b"secret" not in response.content
    assert response.json()["type"] == "urn:captioner:problem:internal-error"


def test_handlers_leave_the_pages_alone() -> None:
    page, call = RequestFactory().get("/history"), RequestFactory().get(URL)
    for answer in (server_error, lambda request: bad_request(request, SuspiciousOperation())):
        assert answer(page).headers["Content-Type"].startswith("text/html")
        assert answer(call).headers["Content-Type"] == "application/problem+json"


def test_unknown_host_is_a_problem_too(client: Client, settings) -> None:
    settings.ALLOWED_HOSTS = ["captioner.example"]
    response = client.get(URL)
    assert response.status_code == 400
    assert response.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("method", ["get", "post", "put", "delete"])
@pytest.mark.parametrize(
    "path", ["/api/", "/api/v1", "/api/v1/captions/", "/api/v2/captions", "/api/schema/"]
)
def test_unknown_url(client: Client, method: str, path: str) -> None:
    response = getattr(client, method)(path)
    assert response.status_code == 404
    assert response.headers["Content-Type"] == "application/problem+json"
    assert path in response.json()["detail"]


@pytest.mark.django_db
@pytest.mark.parametrize("method", ["put", "patch", "delete"])
def test_method_that_is_not_allowed_names_those_that_are(client: Client, method: str) -> None:
    response = getattr(client, method)(URL)
    assert response.status_code == 405
    assert set(response.headers["Allow"].split(", ")) >= {"GET", "POST"}
    assert response.headers["Content-Type"] == "application/problem+json"
