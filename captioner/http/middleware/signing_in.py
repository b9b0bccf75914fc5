"""What `captioner.http.sign_in` tells a browser: that it tried too often, or that it is known from now on."""

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_in
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from captioner.exceptions import TooManyAttempts
from captioner.http.sign_in import KNOWN_COOKIE, KNOWN_MAX_AGE, KNOWN_SALT, known_browser_make


class SigningInMiddleware:
    """Turns `TooManyAttempts`, which every page that asks for a password may raise, into a 429."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        known = getattr(request, "known_browser", None)
        if known is not None:
            response.set_signed_cookie(
                KNOWN_COOKIE,
                known,
                salt=KNOWN_SALT,
                max_age=KNOWN_MAX_AGE,
                httponly=True,
                samesite="Lax",
                secure=settings.SESSION_COOKIE_SECURE,
            )
        return response

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        if not isinstance(exception, TooManyAttempts):
            return None
        response = render(request, "429.html", {"error": exception}, status=429)
        response["Retry-After"] = str(exception.retry_after)
        return response


@receiver(user_logged_in)
def user_signed_in(request: HttpRequest, user: User, **_: Any) -> None:
    request.known_browser = known_browser_make(user)  # type: ignore[attr-defined]
