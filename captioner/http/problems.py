"""Turns exceptions into HTTP answers, problem details (RFC 9457): the one place for pages and the API.

`captioner.api.exception_handler` adds what only REST framework raises.
"""

import math
import sys
from dataclasses import dataclass, field
from typing import Any, Self

from django.conf import settings
from django.core.exceptions import (
    DisallowedHost,
    ObjectDoesNotExist,
    PermissionDenied,
    RequestDataTooBig,
    SuspiciousOperation,
)
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, UnreadablePostError
from django.http.multipartparser import MultiPartParserError
from django.shortcuts import render
from django.template.loader import render_to_string
from django.views import defaults

from captioner.exceptions import (
    ClientGone,
    DeadlineExceeded,
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    InvalidArchive,
    InvalidFeedback,
    InvalidIdempotencyKey,
    InvalidImage,
    ModelUnavailable,
    Overloaded,
    StorageUnavailable,
    TooManyAttempts,
)
from models_registry.exceptions import NotPromotable, StoreUnavailable, VersionUnknown

MEDIA_TYPE = "application/problem+json"
_INVALID_IMAGE_STATUS = {"too_large": 413, "not_an_image": 415}  # by reason; every other one is a 422
_INVALID_ARCHIVE_STATUS = {"too_large": 413, "too_many": 413, "not_an_archive": 415}
# Seconds after which a model that is loading, or a database that is restarting, is worth another try.
_UNAVAILABLE_RETRY_AFTER = 5


@dataclass(frozen=True, slots=True)
class Problem:
    """An error to be told, for programs (`kind`, `status`, `extensions`) and for people (`title`, `detail`).

    `kind` is stable and makes the problem's `type` URI; `extensions` are further members of the JSON object.
    """

    kind: str
    status: int
    detail: str
    headers: dict[str, str] = field(default_factory=dict)
    extensions: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def retryable(cls, kind: str, status: int, detail: str, retry_after: float) -> Self:
        """`retry_after` in seconds; the header knows whole ones, and 0 would invite a tight loop."""
        seconds = max(1, math.ceil(retry_after))
        return cls(kind, status, detail, {"Retry-After": str(seconds)}, {"retry_after": seconds})

    @classmethod
    def invalid_fields(cls, errors: list[tuple[str, str]]) -> Self:
        """`errors` are pairs of a field's name and what is wrong with it."""
        return cls(
            "invalid-fields",
            422,
            " ".join(f"{name}: {detail}" for name, detail in errors),
            extensions={"errors": [{"field": name, "detail": detail} for name, detail in errors]},
        )

    @property
    def title(self) -> str:
        return self.kind.replace("-", " ").capitalize()

    def body(self) -> dict[str, Any]:
        return {
            "type": f"urn:captioner:problem:{self.kind}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            **self.extensions,
        }

    def response(self) -> JsonResponse:
        response = JsonResponse(
            self.body(), status=self.status, headers=self.headers, content_type=MEDIA_TYPE
        )
        if self.status == 503:
            no_error_logged(response)
        return response


def no_error_logged(response: HttpResponse) -> None:
    """Keep Django from logging this 503 as an error: the cause, where there is one, is in the log already."""
    response._has_been_logged = True  # type: ignore[attr-defined]


def problem_from(error: Exception) -> Problem | None:
    """Returns the problem that an error of the domain or of Django stands for; None for a defect, a plain 500."""
    match error:
        case VersionUnknown():
            return Problem("not-found", 404, str(error))
        case NotPromotable():
            return Problem("not-promotable", 409, str(error))
        case InvalidImage():
            status = _INVALID_IMAGE_STATUS.get(error.reason, 422)
            return Problem("invalid-image", status, str(error), extensions={"reason": error.reason})
        case InvalidArchive():
            status = _INVALID_ARCHIVE_STATUS.get(error.reason, 422)
            return Problem("invalid-archive", status, str(error), extensions={"reason": error.reason})
        case InvalidIdempotencyKey():
            return Problem.invalid_fields([("Idempotency-Key", str(error))])
        case IdempotencyKeyInUse():
            return Problem.retryable("idempotency-key-in-use", 409, str(error), error.retry_after)
        case IdempotencyKeyReused():
            return Problem("idempotency-key-reused", 422, str(error))
        case InvalidFeedback():
            return Problem.invalid_fields([(error.field, str(error))])
        case Overloaded():
            return Problem.retryable("overloaded", 429, str(error), error.retry_after)
        case TooManyAttempts():
            return Problem.retryable("too-many-attempts", 429, str(error), error.retry_after)
        case ModelUnavailable():
            return Problem.retryable("model-unavailable", 503, str(error), _UNAVAILABLE_RETRY_AFTER)
        case StorageUnavailable() | StoreUnavailable():
            return Problem.retryable("storage-unavailable", 503, str(error), _UNAVAILABLE_RETRY_AFTER)
        case DeadlineExceeded():
            return Problem("deadline-exceeded", 504, str(error))
        case ClientGone():
            return Problem("client-gone", 400, str(error))
        case Http404() | ObjectDoesNotExist():
            return Problem("not-found", 404, "There is nothing here for you.")
        case PermissionDenied():
            return Problem("permission-denied", 403, str(error) or "You may not do this.")
        case RequestDataTooBig():
            limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE // 1024**2
            detail = f"The request body is larger than what is accepted here, at most {limit} MiB."
            return Problem("request-too-large", 413, detail)
        case UnreadablePostError():
            return Problem("bad-request", 400, "The request body did not arrive as a whole.")
        case SuspiciousOperation() | MultiPartParserError():
            return Problem("bad-request", 400, str(error))
        case OperationalError() | InterfaceError():
            detail = "The database cannot be reached right now; please try again."
            return Problem.retryable("database-unavailable", 503, detail, _UNAVAILABLE_RETRY_AFTER)
    return None


def csrf_failed(request: HttpRequest, reason: str = "") -> HttpResponse:  # noqa: ARG001  Django gives it
    """`CSRF_FAILURE_VIEW`: a form that came from another address is told from one that has expired."""
    origin = request.headers.get("Origin", "")
    own = f"{request.scheme}://{request.get_host()}"
    context = {"origin": origin if origin not in {"", own} else "", "own": own}
    return render(request, "403_csrf.html", context, status=403)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's `handler400`: answers what its middleware or ours refused before any view was reached."""
    problem = problem_from(exception) if isinstance(exception, RequestDataTooBig) else None
    problem = problem or Problem(
        "bad-request", 400, "The request is malformed, or meant for another host name."
    )
    if request.path.startswith("/api/"):
        return problem.response()
    context = {"is_other_host": isinstance(exception, DisallowedHost)}
    return HttpResponse(render_to_string("400.html", context), status=problem.status)


def server_error(request: HttpRequest) -> HttpResponse:
    """Django's `handler500`: tells nothing about a defect, which is in the log; what is down for now is a 503."""
    error = sys.exc_info()[1]
    problem = problem_from(error) if isinstance(error, Exception) else None
    if problem is None or problem.status != 503:
        problem = Problem("internal-error", 500, "Something failed here. It was logged; please try again.")
    if request.path.startswith("/api/"):
        return problem.response()
    response = defaults.server_error(request, template_name=f"{problem.status}.html")
    response.status_code = problem.status
    for name, value in problem.headers.items():
        response[name] = value
    return response
