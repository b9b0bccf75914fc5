"""What a request's body may be, before anything reads it."""

from collections.abc import Callable

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse

from captioner.images import MAX_BYTES

_FORM_FIELDS_BYTES = 2**20


class RequestBodyMiddleware:
    """Holds forms to UTF-8, and bodies to the largest upload allowed.

    Without it Django decodes a form with whatever codec its `charset` names, and fails on "zlib" or "idna";
    and it writes files to disk for as long as a client sends some.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        request.encoding = "utf-8"
        length = int(request.META.get("CONTENT_LENGTH") or 0)
        largest = max(settings.UPLOAD_MAX_PHOTOS * MAX_BYTES, settings.JOB_MAX_MEGABYTES * 2**20)
        if length > largest + _FORM_FIELDS_BYTES:
            raise RequestDataTooBig(f"The request body has {length:,} bytes.")
        return self.get_response(request)
