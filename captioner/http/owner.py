"""Who is calling: a user, an API key, or an anonymous visitor known by a signed cookie."""

import uuid
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse

from captioner.models import Owner

COOKIE = "captioner_visitor"
COOKIE_MAX_AGE = 365 * 24 * 3600  # seconds


class VisitorMiddleware:
    """Sets the visitor cookie once somebody anonymous did something that has to be found again."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        visitor = getattr(request, "new_visitor", None)
        if visitor is not None:
            response.set_signed_cookie(
                COOKIE,
                str(visitor),
                max_age=COOKIE_MAX_AGE,
                httponly=True,
                samesite="Lax",
                secure=settings.SESSION_COOKIE_SECURE,
            )
        return response


def owner_of(request: HttpRequest) -> Owner:
    """The owner of what this request creates and may see.

    An anonymous request without a cookie becomes a new visitor; the middleware hands the cookie out.
    """
    api_key = getattr(request, "auth", None)
    if api_key is not None:
        return Owner(api_key=api_key)
    if request.user.is_authenticated:
        return Owner(user=request.user)
    return Owner(visitor=_visitor(request))


def _visitor(request: Any) -> uuid.UUID:
    request = getattr(request, "_request", request)  # a REST framework request wraps Django's
    cookie = request.get_signed_cookie(COOKIE, default=None, max_age=COOKIE_MAX_AGE)
    if cookie is not None:
        return uuid.UUID(cookie)
    if not hasattr(request, "new_visitor"):
        request.new_visitor = uuid.uuid4()
    visitor: uuid.UUID = request.new_visitor
    return visitor
