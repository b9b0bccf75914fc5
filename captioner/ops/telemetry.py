"""Errors to Sentry and traces to OpenTelemetry, each where its variable is set and its package installed."""

from importlib.util import find_spec

from django.conf import settings

SENTRY_PACKAGES = ("sentry_sdk",)
TRACING_PACKAGES = (
    "opentelemetry.sdk",
    "opentelemetry.exporter.otlp.proto.http",
    "opentelemetry.instrumentation.django",
)


def start() -> None:
    """Once per process, when Django starts. What is missing is a system check's to tell: see `captioner.ops.checks`."""
    if settings.SENTRY_DSN and is_installed(*SENTRY_PACKAGES):
        import sentry_sdk

        sentry_sdk.init(
            settings.SENTRY_DSN,
            send_default_pii=False,
            # Photos and what people typed stay here.
            max_request_body_size="never",
            include_local_variables=False,
        )
    if settings.OTEL_EXPORTER_OTLP_ENDPOINT and is_installed(*TRACING_PACKAGES):
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.instrumentation.django import DjangoInstrumentor
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        named = Resource({"service.name": "captioner"}).merge(OTELResourceDetector().detect())
        provider = TracerProvider(resource=Resource.create().merge(named))
        endpoint = f"{settings.OTEL_EXPORTER_OTLP_ENDPOINT.rstrip('/')}/v1/traces"
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint)))
        trace.set_tracer_provider(provider)
        # Behind the probes, which may come with any host name; the middleware raises on those not allowed.
        position = settings.MIDDLEWARE.index("django.middleware.security.SecurityMiddleware")
        DjangoInstrumentor().instrument(tracer_provider=provider, middleware_position=position)


def is_installed(*packages: str) -> bool:
    try:
        return all(find_spec(package) for package in packages)
    except ModuleNotFoundError:  # of a package's parent
        return False
