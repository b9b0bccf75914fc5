"""Refuses request bodies above the size of every upload, before anything reads them."""

from collections.abc import Callable

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse

from captioner.intake.limits import MAX_BYTES

_FORM_FIELDS_BYTES = 2**20


class RequestBodyMiddleware:
    """Limits bodies to the largest upload allowed; Django itself would write files to disk without any limit."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        length = int(request.META.get("CONTENT_LENGTH") or 0)
        largest = max(MAX_BYTES + _FORM_FIELDS_BYTES, settings.JOB_MAX_MEGABYTES * 2**20)
        if request.content_type == "application/x-www-form-urlencoded":
            largest = _FORM_FIELDS_BYTES
        if length > largest:
            raise RequestDataTooBig(f"The request body has {length:,} bytes.")
        return self.get_response(request)
