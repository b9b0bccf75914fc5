"""The one place where exceptions become HTTP answers: problem details (RFC 9457) for the API and pages."""

import logging
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.exceptions import (
    ObjectDoesNotExist,
    PermissionDenied,
    RequestDataTooBig,
    SuspiciousOperation,
)
from django.db import DatabaseError, InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, UnreadablePostError
from django.http.multipartparser import MultiPartParserError
from django.views import defaults
from django.views.decorators.csrf import csrf_exempt
from rest_framework.exceptions import APIException, UnsupportedMediaType, ValidationError

from captioner.exceptions import (
    ClientGone,
    DeadlineExceeded,
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    InvalidArchive,
    InvalidFeedback,
    InvalidImage,
    ModelUnavailable,
    Overloaded,
    StorageUnavailable,
    TooManyAttempts,
)
from models_registry.exceptions import NotPromotable, StoreUnavailable, VersionUnknown

if TYPE_CHECKING:  # pages import this module and should not load REST framework's views
    from rest_framework.request import Request
    from rest_framework.views import APIView

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
_INVALID_IMAGE_STATUS = {"too_large": 413, "not_an_image": 415}  # by reason; every other one is a 422
_INVALID_ARCHIVE_STATUS = {"too_large": 413, "too_many": 413, "not_an_archive": 415}
# Seconds after which a model that is loading, or a database that is restarting, is worth another try.
_UNAVAILABLE_RETRY_AFTER = 5


@dataclass(frozen=True, slots=True)
class Problem:
    """What went wrong, for programs (`kind`, `status`, `extensions`) and for people (`title`, `detail`).

    `kind` is stable and makes the problem's `type` URI; `extensions` are further members of the JSON object.
    """

    kind: str
    status: int
    detail: str
    headers: dict[str, str] = field(default_factory=dict)
    extensions: dict[str, Any] = field(default_factory=dict)

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
    """Keep Django from logging this answer as an error: who has to wait has been told, and the cause is in the log."""
    response._has_been_logged = True  # type: ignore[attr-defined]


def problem_from(error: Exception) -> Problem | None:
    """The problem that `error` stands for; None when it is a defect, which is a plain 500."""
    return _captioner_problem(error) or _framework_problem(error)


def problem_response(error: Exception, context: dict[str, Any]) -> JsonResponse | None:
    """REST framework's `EXCEPTION_HANDLER`. A defect is re-raised for Django to log; see `server_error`."""
    if isinstance(error, UnsupportedMediaType):
        return _unsupported_media_type(context["request"], context["view"]).response()
    if isinstance(error, DatabaseError):
        logger.error("The database failed a request.", exc_info=error)
    problem = problem_from(error)
    return None if problem is None else problem.response()


@csrf_exempt
def no_such_url(request: HttpRequest) -> HttpResponse:
    """Answers what no route of the API matched."""
    return Problem("not-found", 404, f"The API has nothing at {request.path}; see /api/docs.").response()


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's `handler400`: what its middleware or ours refused before any view was reached."""
    problem = problem_from(exception) if isinstance(exception, RequestDataTooBig) else None
    problem = problem or Problem(
        "bad-request", 400, "The request is malformed, or meant for another host name."
    )
    if request.path.startswith("/api/"):
        return problem.response()
    response = defaults.bad_request(request, exception)
    response.status_code = problem.status
    return response


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


def _captioner_problem(error: Exception) -> Problem | None:
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
        case IdempotencyKeyInUse():
            return _retryable("idempotency-key-in-use", 409, str(error), error.retry_after)
        case IdempotencyKeyReused():
            return Problem("idempotency-key-reused", 422, str(error))
        case InvalidFeedback():
            return _invalid_fields([(error.field, str(error))])
        case Overloaded():
            return _retryable("overloaded", 429, str(error), error.retry_after)
        case TooManyAttempts():
            return _retryable("too-many-attempts", 429, str(error), error.retry_after)
        case ModelUnavailable():
            return _retryable("model-unavailable", 503, str(error), _UNAVAILABLE_RETRY_AFTER)
        case StorageUnavailable() | StoreUnavailable():
            return _retryable("storage-unavailable", 503, str(error), _UNAVAILABLE_RETRY_AFTER)
        case DeadlineExceeded():
            return Problem("deadline-exceeded", 504, str(error))
        case ClientGone():
            return Problem("client-gone", 400, str(error))
    return None


def _framework_problem(error: Exception) -> Problem | None:
    match error:
        case ValidationError():
            return _invalid_fields(list(_flatten(error.detail)))
        case APIException():
            return _api_problem(error)
        case Http404() | ObjectDoesNotExist():
            return Problem("not-found", 404, "There is nothing here for you.")
        case PermissionDenied():
            return Problem("permission-denied", 403, str(error) or "You may not do this.")
        case RequestDataTooBig():
            limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE // 1024**2
            return Problem(
                "request-too-large", 413, f"The request body is larger than the {limit} MiB accepted."
            )
        case UnreadablePostError():
            return Problem("bad-request", 400, "The request body did not arrive as a whole.")
        case SuspiciousOperation() | MultiPartParserError():
            return Problem("bad-request", 400, str(error))
        case OperationalError() | InterfaceError():
            detail = "The database cannot be reached right now; please try again."
            return _retryable("database-unavailable", 503, detail, _UNAVAILABLE_RETRY_AFTER)
    return None


def _api_problem(error: APIException) -> Problem:
    kind = error.default_code.replace("_", "-")
    wait = getattr(error, "wait", None)
    if wait is not None:
        return _retryable(kind, error.status_code, str(error.detail), wait)
    auth_header = getattr(error, "auth_header", None)
    headers = {"WWW-Authenticate": auth_header} if auth_header else {}
    return Problem(kind, error.status_code, str(error.detail), headers)


def _unsupported_media_type(request: "Request", view: "APIView") -> Problem:
    supported = [parser.media_type for parser in view.parser_classes]
    if (
        request.META.get("CONTENT_TYPE", "").startswith("multipart/form-data")
        and "multipart/form-data" in supported
    ):
        return Problem(
            "bad-request", 400, "The multipart form's boundary is longer than 200 characters, or damaged."
        )
    given = request.content_type or "a body without a Content-Type"
    detail = f"{given} cannot be read here; send {' or '.join(supported)}."
    return Problem(
        "unsupported-media-type", 415, detail, {"Accept": ", ".join(supported)}, {"supported": supported}
    )


def _retryable(kind: str, status: int, detail: str, retry_after: float) -> Problem:
    """`retry_after` in seconds; the header knows whole ones, and 0 would invite a tight loop."""
    seconds = max(1, math.ceil(retry_after))
    return Problem(kind, status, detail, {"Retry-After": str(seconds)}, {"retry_after": seconds})


def _invalid_fields(errors: list[tuple[str, str]]) -> Problem:
    return Problem(
        "invalid-fields",
        422,
        " ".join(f"{name}: {detail}" for name, detail in errors),
        extensions={"errors": [{"field": name, "detail": detail} for name, detail in errors]},
    )


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
