"""REST framework's exception handler: its own exceptions become problem details too (RFC 9457)."""

import logging
from collections.abc import Iterator
from typing import Any

from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from rest_framework.exceptions import APIException, UnsupportedMediaType, ValidationError

from captioner.http.problems import Problem, problem_from

logger = logging.getLogger(__name__)


def problem_response(error: Exception, context: dict[str, Any]) -> JsonResponse | None:
    """REST framework's `EXCEPTION_HANDLER`. A defect is re-raised for Django, which logs it and calls `handler500`."""
    if isinstance(error, DatabaseError):
        logger.error("The database failed a request.", exc_info=error)
    problem = rest_problem_from(error)
    if isinstance(error, UnsupportedMediaType):
        request = context["request"]
        supported = [parser.media_type for parser in context["view"].parser_classes]
        is_form = request.META.get("CONTENT_TYPE", "").startswith("multipart/form-data")
        if is_form and "multipart/form-data" in supported:
            detail = "The multipart form's boundary is longer than 200 characters, or damaged."
            problem = Problem("bad-request", 400, detail)
        else:
            given = request.content_type or "a body without a Content-Type"
            detail = f"{given} cannot be read here; send {' or '.join(supported)}."
            headers = {"Accept": ", ".join(supported)}
            problem = Problem("unsupported-media-type", 415, detail, headers, {"supported": supported})
    return None if problem is None else problem.response()


def rest_problem_from(error: Exception) -> Problem | None:
    """As `problem_from`, for REST framework's exceptions as well."""
    if isinstance(error, ValidationError):
        return Problem.invalid_fields(list(_flatten(error.detail)))
    if not isinstance(error, APIException):
        return problem_from(error)
    kind = error.default_code.replace("_", "-")
    wait = getattr(error, "wait", None)
    if wait is not None:
        return Problem.retryable(kind, error.status_code, str(error.detail), wait)
    auth_header = getattr(error, "auth_header", None)
    headers = {"WWW-Authenticate": auth_header} if auth_header else {}
    return Problem(kind, error.status_code, str(error.detail), headers)


@csrf_exempt
def no_such_url(request: HttpRequest) -> HttpResponse:
    """Answers what no route of the API matched."""
    return Problem("not-found", 404, f"The API has nothing at {request.path}; see /api/docs.").response()


def _flatten(detail: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """REST framework nests messages by field; every leaf becomes ("outer.inner", message)."""
    if isinstance(detail, dict):
        for key, value in detail.items():
            yield from _flatten(value, f"{name}.{key}" if name else key)
    elif isinstance(detail, list):
        for value in detail:
            yield from _flatten(value, name)
    else:
        yield name, str(detail)
