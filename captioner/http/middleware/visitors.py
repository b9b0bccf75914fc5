"""The cookie by which an anonymous visitor is known again."""

from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse

from captioner.http.owner import COOKIE, COOKIE_MAX_AGE


class VisitorMiddleware:
    """Sets the cookie of a visitor whom `owner_of` invented, once there is something that is theirs.

    A browser may have sent no cookie only because another site made it ask; a new one would take the history away.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        visitor = getattr(request, "new_visitor", None)
        if visitor is not None and request.method == "POST" and response.status_code < 400:
            response.set_signed_cookie(
                COOKIE,
                str(visitor),
                max_age=COOKIE_MAX_AGE,
                httponly=True,
                samesite="Lax",
                secure=settings.SESSION_COOKIE_SECURE,
            )
        return response
