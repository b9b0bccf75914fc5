"""`/metrics` for Prometheus, and the counting of requests."""

import time
from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils.crypto import constant_time_compare

from captioner.ops import metrics

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class MetricsMiddleware:
    """Goes before the middleware that wants an allowed host or TLS: Prometheus asks each process by its own address."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.path == "/metrics":
            return _metrics(request)
        started = time.perf_counter()
        response = self.get_response(request)
        # Labelled by view and not by path, which are endless; methods can be made up, so unknown ones count as one.
        match = request.resolver_match
        view = match.view_name if match else "none"
        method = request.method if request.method in _METHODS else "other"
        metrics.http_requests.labels(view, method, response.status_code).inc()
        metrics.http_seconds.labels(view).observe(time.perf_counter() - started)
        return response


def _metrics(request: HttpRequest) -> HttpResponse:
    """Guarded by `METRICS_TOKEN`; without one, open in the embedded default and off in production."""
    if not settings.METRICS_TOKEN and settings.PRODUCTION:
        return HttpResponse("Set METRICS_TOKEN to turn metrics on.\n", status=404, content_type="text/plain")
    expected = f"Bearer {settings.METRICS_TOKEN}"
    if settings.METRICS_TOKEN and not constant_time_compare(
        request.headers.get("Authorization", ""), expected
    ):
        challenge = {"WWW-Authenticate": 'Bearer realm="metrics"'}
        return HttpResponse("Send METRICS_TOKEN as a bearer token.\n", "text/plain", 401, headers=challenge)
    return HttpResponse(metrics.exposition(), _CONTENT_TYPE)
