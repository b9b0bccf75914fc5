"""The headers of draft-ietf-httpapi-ratelimit-headers."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from captioner.http.rates import Standing


class RateLimitMiddleware:
    """Adds to each answer, good or bad, the limits its request was counted against and what is left of them."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        standings: list[Standing] = getattr(request, "rate_standings", [])
        if standings:
            response["RateLimit-Policy"] = ", ".join(
                f'"{standing.rate.name}";q={standing.rate.quota};w={standing.rate.window}'
                for standing in standings
            )
            response["RateLimit"] = ", ".join(
                f'"{standing.rate.name}";r={standing.remaining};t={standing.reset}' for standing in standings
            )
        return response
