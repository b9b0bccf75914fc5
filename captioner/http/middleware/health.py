"""`/healthz` (is this process alive) and `/readyz` (may it get traffic).

A middleware in front of all others, so that probes need no allowed host, no TLS, no session and no database.
"""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse, JsonResponse

from captioner.http.problems import no_error_logged
from captioner.serving.process import serving


class HealthMiddleware:
    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.path == "/healthz":
            return JsonResponse({"status": "alive"})
        if request.path == "/readyz":
            status = serving.status()
            response = JsonResponse(status, status=200 if status["state"] == "ready" else 503)
            no_error_logged(response)  # a probe that has to wait is none
            return response
        return self.get_response(request)
