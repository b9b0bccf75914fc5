"""System checks: a misconfiguration is told with a hint before it becomes somebody's failed request."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register

from captioner.env import env_text
from captioner.ops import telemetry
from captioner.ops.storage import data_dir_ensure


@register(Tags.files)
def check_data_dir(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    try:
        data_dir_ensure()
        probe = settings.DATA_DIR / ".write-probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        return [
            Error(
                f"Nothing can be written under {settings.DATA_DIR}: {error}.",
                hint="Point CAPTIONER_DATA_DIR at a folder that the user running Captioner may write to.",
                id="captioner.E001",
            )
        ]
    return []


@register(Tags.files)
def check_s3(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    if settings.S3_ENDPOINT_URL and not settings.S3_BUCKET:
        return [
            Error(
                "S3_ENDPOINT_URL is set but S3_BUCKET is not, so photos and weights would stay in local files.",
                hint="Set S3_BUCKET to the bucket to use, or unset S3_ENDPOINT_URL.",
                id="captioner.E002",
            )
        ]
    address = urlsplit(settings.S3_ENDPOINT_URL or "")
    if settings.S3_ENDPOINT_URL and (address.scheme not in {"http", "https"} or not address.hostname):
        return [
            Error(
                f"S3_ENDPOINT_URL={settings.S3_ENDPOINT_URL!r} is no address of a server.",
                hint="Write the scheme, too, e.g. http://minio:9000.",
                id="captioner.E005",
            )
        ]
    if bool(env_text("S3_ACCESS_KEY")) != bool(env_text("S3_SECRET_KEY")):
        return [
            Error(
                "Only one of S3_ACCESS_KEY and S3_SECRET_KEY is set.",
                hint="Set both (or their _FILE forms), or neither to use the machine's own role.",
                id="captioner.E003",
            )
        ]
    return []


@register(Tags.security, deploy=True)
def check_allowed_hosts(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    if "*" in settings.ALLOWED_HOSTS:
        return [
            Warning(
                "ALLOWED_HOSTS allows every host name, which lets other sites' names point at this service.",
                hint="Set ALLOWED_HOSTS to the names people use, separated by commas.",
                id="captioner.W001",
            )
        ]
    return []


@register()
def check_broker(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    scheme = urlsplit(settings.CELERY_BROKER_URL).scheme
    if settings.PRODUCTION and scheme == "filesystem":
        return [
            Warning(
                "Background work goes through local files, which only processes of one machine can share.",
                hint="Set REDIS_URL (or CELERY_BROKER_URL).",
                id="captioner.W002",
            )
        ]
    if scheme not in {"filesystem", "redis", "rediss", "amqp", "amqps", "memory", "sqs", "sentinel"}:
        return [
            Error(
                f"The broker URL has the scheme {scheme!r}, which Celery does not know.",
                hint="Use e.g. redis://host:6379/0 in REDIS_URL or CELERY_BROKER_URL.",
                id="captioner.E004",
            )
        ]
    return []


@register(Tags.security)
def check_memory_scope(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    if settings.MEMORY_SCOPE == "installation" and settings.ALLOW_ANONYMOUS:
        return [
            Warning(
                "Anybody may caption without signing in, and is answered with what others wrote of the same photo.",
                hint="Set MEMORY_SCOPE to owner, or CAPTIONER_ALLOW_ANONYMOUS to false.",
                id="captioner.W005",
            )
        ]
    return []


@register(Tags.database)
def check_database(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    if settings.PRODUCTION and not settings.DATABASE_URL:
        return [
            Warning(
                "Production runs on SQLite, which is one file on one machine.",
                hint="Set DATABASE_URL, e.g. postgres://user:password@host:5432/captioner.",
                id="captioner.W003",
            )
        ]
    return []


@register(deploy=True)
def check_timeout(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    if settings.CAPTION_TIMEOUT_SECONDS >= settings.STOP_SECONDS:
        return [
            Warning(
                f"A request may take {settings.CAPTION_TIMEOUT_SECONDS} s, but a web process that is told to stop "
                f"ends after {settings.STOP_SECONDS} s, with what it had accepted.",
                hint=f"Set CAPTION_TIMEOUT_SECONDS below {settings.STOP_SECONDS}.",
                id="captioner.W004",
            )
        ]
    return []


@register()
def check_telemetry(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    wanted = [
        ("SENTRY_DSN", telemetry.SENTRY_PACKAGES, "captioner.E007"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", telemetry.TRACING_PACKAGES, "captioner.E006"),
    ]
    return [
        Error(
            f"{name} is set, but what sends there is not installed.",
            hint="Install it with `pip install -r deploy/telemetry-requirements.txt`, or unset the variable.",
            id=check_id,
        )
        for name, packages, check_id in wanted
        if getattr(settings, name) and not telemetry.is_installed(*packages)
    ]
