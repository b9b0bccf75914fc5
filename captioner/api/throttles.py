"""How many requests a caller may make, and the headers that tell: draft-ietf-httpapi-ratelimit-headers."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from django.http import HttpRequest, HttpResponse
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from captioner.http import rates

if TYPE_CHECKING:  # REST framework's views import this module
    from rest_framework.views import APIView


class CallerThrottle(BaseThrottle):
    """By key and by user for those who signed in, by address for those who did not."""

    def allow_request(self, request: Request, view: "APIView") -> bool:
        key = request.auth.pk if request.auth else None
        self._wait = rates.retry_after(rates.caller_take(request._request, request.user.pk, key))
        return self._wait is None

    def wait(self) -> float | None:
        return self._wait


class RateLimitMiddleware:
    """Tells in each answer, good or bad, the limits that its request was counted against and what is left."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        standings: list[rates.Standing] = getattr(request, "rate_standings", [])
        if standings:
            response["RateLimit-Policy"] = ", ".join(
                f'"{standing.rate.name}";q={standing.rate.quota};w={standing.rate.window}'
                for standing in standings
            )
            response["RateLimit"] = ", ".join(
                f'"{standing.rate.name}";r={standing.remaining};t={standing.reset}' for standing in standings
            )
        return response
