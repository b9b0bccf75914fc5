"""One id per request, in the answer and in every log line, so that the log of a reported request can be found."""

import logging
import re
import uuid
from collections.abc import Callable
from contextvars import ContextVar

from django.http import HttpRequest, HttpResponse

HEADER = "X-Request-ID"
# Ids that a client or proxy may choose: every common format, and nothing that could forge a log line.
_ACCEPTABLE = re.compile(r"[\w.:+/=-]{1,128}", re.ASCII)
_current: ContextVar[str] = ContextVar("request_id", default="-")
_is_task: ContextVar[bool] = ContextVar("is_task", default=False)


class RequestIdMiddleware:
    """Takes the request's `X-Request-ID` or makes one, and answers with it. Goes in front of all others."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        given = request.headers.get(HEADER, "")
        request_id = given if _ACCEPTABLE.fullmatch(given) else uuid.uuid4().hex
        # Never reset: Django logs an answer after its middleware ran, and a thread's next request sets its own id.
        _current.set(request_id)
        response = self.get_response(request)
        response[HEADER] = request_id
        return response


def task_begin(task_id: str) -> None:
    """Logs the id of this background task from now on, in place of a request's."""
    _current.set(task_id)
    _is_task.set(True)


class RequestIdFilter(logging.Filter):
    """Gives every log record a `request_id`, or `-`; in a worker it is the task's id, also as `task_id`."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = current = _current.get()
        if _is_task.get():
            record.task_id = current
        return True
