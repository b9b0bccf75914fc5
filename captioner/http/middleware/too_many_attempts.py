"""The page that answers an attempt to sign in that `captioner.http.sign_in` refused."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from captioner.exceptions import TooManyAttempts


class TooManyAttemptsMiddleware:
    """Turns `TooManyAttempts`, which every page that asks for a password may raise, into a 429."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        if not isinstance(exception, TooManyAttempts):
            return None
        response = render(request, "429.html", {"error": exception}, status=429)
        response["Retry-After"] = str(exception.retry_after)
        return response
