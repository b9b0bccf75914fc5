"""All settings, from environment variables only; `deploy/env.example` lists them with their defaults.

With nothing set this is the *embedded* default: SQLite, local files and a file-based broker under
`CAPTIONER_DATA_DIR`, for one machine. `CAPTIONER_PRODUCTION=true` turns the safe-by-default switches on.
"""

from functools import cache
from pathlib import Path
from socket import gethostname
from typing import Any

import dj_database_url
from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured
from django.utils.functional import lazy

from captioner.env import env_bool, env_int, env_list, env_path, env_rate, env_text, env_timezone
from captioner.ops.cores import core_count
from captioner.ops.sqlite import FolderMakingConnection
from captioner.secret import secret_key_ensure

BASE_DIR = Path(__file__).resolve().parent.parent
DATA_DIR = env_path("CAPTIONER_DATA_DIR", BASE_DIR / "var")
PRODUCTION = env_bool("CAPTIONER_PRODUCTION", False)
DEBUG = env_bool("DEBUG", False)

HOST = env_text("HOST", "127.0.0.1")
PORT = env_int("PORT", 8000, minimum=1, maximum=65535)
WEB_WORKERS = env_int("WEB_WORKERS", 1, minimum=1, maximum=64)  # processes; each holds a copy of the weights
WEB_THREADS = env_int(
    "WEB_THREADS", 64, minimum=1, maximum=512
)  # of each: how many requests it has at a time

if PRODUCTION and not env_text("SECRET_KEY"):
    raise ImproperlyConfigured(
        "CAPTIONER_PRODUCTION needs SECRET_KEY (or SECRET_KEY_FILE): at least 50 random characters."
    )
# Made when it is first asked for, so that commands that need none write nothing.
SECRET_KEY = env_text("SECRET_KEY") or lazy(cache(secret_key_ensure), str)(DATA_DIR / "secret_key")

# The embedded default answers to this machine only; a wildcard HOST is an explicit wish to be reached from elsewhere.
_EMBEDDED_HOSTS = ["localhost", "127.0.0.1", "[::1]", HOST]
if HOST in {"0.0.0.0", "::"}:  # noqa: S104  compared, not bound
    _EMBEDDED_HOSTS = ["*"]
ALLOWED_HOSTS = env_list("ALLOWED_HOSTS", [] if PRODUCTION else _EMBEDDED_HOSTS)
CSRF_TRUSTED_ORIGINS = env_list("CSRF_TRUSTED_ORIGINS", [])

INSTALLED_APPS = [
    "captioner",
    "models_registry",
    "training",
    "webui",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_filters",
    "django_celery_beat",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
]

MIDDLEWARE = [
    "captioner.http.middleware.request_id.RequestIdMiddleware",
    "captioner.http.middleware.health.HealthMiddleware",
    "captioner.http.middleware.metrics_endpoint.MetricsMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "csp.middleware.CSPMiddleware",
    "captioner.http.middleware.security_headers.SecurityHeadersMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "captioner.http.middleware.request_body.RequestBodyMiddleware",
    "captioner.http.middleware.rate_limits.RateLimitMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "captioner.http.middleware.signing_in.SigningInMiddleware",
    "captioner.http.middleware.visitors.VisitorMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "captioner.urls"
WSGI_APPLICATION = "captioner.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# --- Database -------------------------------------------------------------------------------------------------

DATABASE_URL = env_text("DATABASE_URL")
if DATABASE_URL:
    try:
        DATABASES: dict[str, dict[str, Any]] = {"default": dict(dj_database_url.parse(DATABASE_URL))}
    except ValueError as error:  # whose message would show the password
        raise ImproperlyConfigured(
            "DATABASE_URL is no database URL; write e.g. postgres://user:password@host:5432/captioner."
        ) from error
    if DATABASES["default"]["ENGINE"] not in {"django.db.backends.postgresql", "django.db.backends.sqlite3"}:
        raise ImproperlyConfigured(
            "DATABASE_URL names a server that Captioner does not work with; write e.g. "
            "postgres://user:password@host:5432/captioner."
        )
    if DATABASES["default"]["ENGINE"] == "django.db.backends.postgresql":
        DATABASES["default"] |= {
            "OPTIONS": {
                **DATABASES["default"].get("OPTIONS", {}),  # from the URL, such as sslmode
                # Many request threads share few connections; services give theirs back while a photo waits.
                "pool": {"min_size": 1, "max_size": 16, "timeout": 5},
            },
            # One that died with the server is found out before it is used, and replaced.
            "CONN_HEALTH_CHECKS": True,
            # Behind pgbouncer a cursor would be looked for on another connection than it was opened on.
            "DISABLE_SERVER_SIDE_CURSORS": env_bool("DATABASE_TRANSACTION_POOLING", False),
        }
else:
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": DATA_DIR / "captioner.sqlite3",
            "OPTIONS": {
                "factory": FolderMakingConnection,
                # Writers queue for the lock when they begin instead of failing when they upgrade a read lock.
                "transaction_mode": "IMMEDIATE",
                "timeout": 20,
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
            },
        }
    }
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- Photos, weights and static files ---------------------------------------------------------------------------

S3_ENDPOINT_URL = env_text("S3_ENDPOINT_URL")
S3_BUCKET = env_text("S3_BUCKET")


def _object_storage(prefix: str, backend: str = "storages.backends.s3.S3Storage") -> dict[str, object]:
    """Where `prefix` ("photos", "weights") is kept: the S3 bucket where one is named, else a local folder."""
    if not S3_BUCKET:
        return {
            "BACKEND": "captioner.ops.storage.AtomicFileSystemStorage",
            "OPTIONS": {"location": DATA_DIR / prefix, "allow_overwrite": True},
        }
    from botocore.config import Config  # which takes a while to import

    return {
        "BACKEND": backend,
        "OPTIONS": {
            "bucket_name": S3_BUCKET,
            "endpoint_url": S3_ENDPOINT_URL or None,
            "access_key": env_text("S3_ACCESS_KEY") or None,
            "secret_key": env_text("S3_SECRET_KEY") or None,
            "region_name": env_text("S3_REGION", "us-east-1"),
            # A store that is down is told of while the person still waits, and holds no database connection for long.
            "client_config": Config(
                s3={
                    "addressing_style": env_text(
                        "S3_ADDRESSING_STYLE", "path", choices=("path", "virtual", "auto")
                    )
                },
                signature_version="s3v4",
                connect_timeout=2,
                read_timeout=5,
                retries={"mode": "standard", "total_max_attempts": 2},
                # The newer checksums are unknown to many S3 servers; the registry checks SHA-256 itself.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
            "location": prefix,
            "file_overwrite": True,
            "default_acl": None,
            "querystring_auth": True,
        },
    }


STORAGES = {
    "default": _object_storage("photos", "captioner.ops.bucket.ObjectStorage"),
    "weights": _object_storage("weights"),
    "uploads": _object_storage(
        "uploads", "captioner.ops.bucket.ObjectStorage"
    ),  # photos of batch jobs, until they are captioned
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
}
MODEL_CACHE_MAX_MB = env_int("MODEL_CACHE_MAX_MB", 4000, minimum=0)  # what is in use stays whatever it takes
STATIC_URL = "/static/"
STATIC_ROOT = env_path("CAPTIONER_STATIC_DIR", DATA_DIR / "static")
STATIC_COLLECTED = bool(env_text("CAPTIONER_STATIC_DIR"))  # before, by whoever built the image
STATICFILES_DIRS = [BASE_DIR / "static"]

# --- Cache: counters of rates -------------------------------------------------------------------------------------

REDIS_URL = env_text("REDIS_URL")
if REDIS_URL:
    CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": REDIS_URL,
            "KEY_PREFIX": "captioner",
            # A request waits for a counter no longer than this, in seconds; without one it goes on uncounted.
            "OPTIONS": {"socket_connect_timeout": 0.5, "socket_timeout": 0.5},
        }
    }
else:
    CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
            "OPTIONS": {"MAX_ENTRIES": 100_000},
        }
    }

# --- People and their browsers ----------------------------------------------------------------------------------

ALLOW_ANONYMOUS = env_bool("CAPTIONER_ALLOW_ANONYMOUS", not PRODUCTION)
AUTHENTICATION_BACKENDS = ["captioner.http.sign_in.ThrottledBackend"]
# How many proxies in front append to X-Forwarded-For; TLS in production means at least one.
TRUSTED_PROXIES = env_int("TRUSTED_PROXIES", 1 if PRODUCTION else 0, minimum=0, maximum=10)
# Requests of each key, of each user with all their keys, and of each address that did not sign in; failures to sign in.
RATE_LIMITS = {
    "key": env_rate("RATE_LIMIT_KEY", "3000/m" if PRODUCTION else "off"),
    "user": env_rate("RATE_LIMIT_USER", "3000/m" if PRODUCTION else "off"),
    "address": env_rate("RATE_LIMIT_ADDRESS", "300/m" if PRODUCTION else "off"),
    "sign_in": env_rate("RATE_LIMIT_SIGN_IN", "10/5m"),
    "sign_in_address": env_rate("RATE_LIMIT_SIGN_IN_ADDRESS", "300/5m"),
}
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "home"
CSRF_FAILURE_VIEW = "captioner.http.problems.csrf_failed"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = PRODUCTION
SECURE_SSL_REDIRECT = PRODUCTION
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if PRODUCTION else None
SECURE_HSTS_SECONDS = 365 * 24 * 3600 if PRODUCTION else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = PRODUCTION
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
# No page has scripts or styles within, so there is no nonce. Images: data: is Swagger's, blob: previews of uploads.
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:", "blob:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
        "base-uri": [NONE],
        "upgrade-insecure-requests": PRODUCTION,
    }
}

# Our own check makes the folder of uploads; Django's may come first and miss it.
SILENCED_SYSTEM_CHECKS = ["files.E001"]

# The photo intake has its own, clearer limit; this one only bounds what is held in memory for a request body.
DATA_UPLOAD_MAX_MEMORY_SIZE = 24 * 1024 * 1024
FILE_UPLOAD_MAX_MEMORY_SIZE = 2 * 1024 * 1024
FILE_UPLOAD_TEMP_DIR = str(DATA_DIR / "tmp")

LANGUAGE_CODE = "en"
TIME_ZONE = env_timezone("TIME_ZONE", "UTC")
USE_TZ = True

# --- REST -------------------------------------------------------------------------------------------------------

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "captioner.api.access.ApiKeyAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["captioner.api.access.MayCaption"],
    "DEFAULT_THROTTLE_CLASSES": ["captioner.api.access.CallerThrottle"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_FILTER_BACKENDS": ["django_filters.rest_framework.DjangoFilterBackend"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "captioner.api.exception_handler.problem_response",
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Captioner",
    "DESCRIPTION": "Captions for photos, from a model in this very process that learns from your corrections.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.0",
    "SCHEMA_PATH_PREFIX": r"/api/v\d+",
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
}

# --- Captioning -------------------------------------------------------------------------------------------------

MODEL = env_text("CAPTIONER_MODEL")  # owner/name on the hub, or owner/name@revision
CAPTION_MAX_BATCH = env_int("CAPTION_MAX_BATCH", 8, minimum=1, maximum=64)
CAPTION_TIMEOUT_SECONDS = env_int("CAPTION_TIMEOUT_SECONDS", 20, minimum=1, maximum=300)
CAPTION_MAX_WAIT_SECONDS = env_int("CAPTION_MAX_WAIT_SECONDS", 3, minimum=1, maximum=300)
STOP_SECONDS = 30  # for accepted requests, once a web process is told to stop
CAPTION_THREADS = env_int("CAPTION_THREADS", 0, minimum=0)  # 0: one per CPU core this process may use
if not CAPTION_THREADS and WEB_WORKERS > 1:
    CAPTION_THREADS = max(1, core_count() // WEB_WORKERS)  # processes share the cores
JOB_MAX_PHOTOS = env_int("JOB_MAX_PHOTOS", 1000, minimum=1, maximum=100_000)  # in one batch job
JOB_MAX_MEGABYTES = env_int("JOB_MAX_MEGABYTES", 300, minimum=1)  # of one batch job, as sent and unpacked
# Of all jobs of one caller that are not over: of a user with all their keys, of an address of visitors.
JOB_MAX_WAITING = env_int("JOB_MAX_WAITING", 20, minimum=1)
JOB_MAX_WAITING_MEGABYTES = env_int("JOB_MAX_WAITING_MEGABYTES", 1000, minimum=1)

# Whose approved corrections answer when the same photo comes again: those of the same person (user, API key or
# visitor), of everybody here, or nobody's.
MEMORY_SCOPE = env_text(
    "MEMORY_SCOPE",
    "owner" if ALLOW_ANONYMOUS else "installation",
    choices=("owner", "installation", "off"),
)

# --- Background work --------------------------------------------------------------------------------------------

CELERY_BROKER_URL = env_text("CELERY_BROKER_URL") or REDIS_URL or "filesystem://localhost/"
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None  # a worker waits for its broker as long as it takes
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_BROKER_TRANSPORT_OPTIONS: dict[str, object] = {}
if CELERY_BROKER_URL.startswith("filesystem://"):
    _BROKER_DIR = DATA_DIR / "broker"
    CELERY_BROKER_TRANSPORT_OPTIONS = {
        "data_folder_in": str(_BROKER_DIR / "messages"),
        "data_folder_out": str(_BROKER_DIR / "messages"),
        "control_folder": str(_BROKER_DIR / "control"),
    }
elif CELERY_BROKER_URL.startswith(("redis://", "rediss://")):
    # Longer than the longest task: Redis hands an unacknowledged message out again after this many seconds.
    # Nobody who enqueues something waits long for a server that does not answer.
    CELERY_BROKER_TRANSPORT_OPTIONS = {"visibility_timeout": 12 * 3600, "socket_connect_timeout": 2}
# Training has a queue of its own, which only the trainer consumes: a run may take hours.
CELERY_TASK_ROUTES = {
    "training.tasks.run_execute_task": {"queue": "training"},
    # Its process has the memory, and gives it back.
    "captioner.tasks.model_import_task": {"queue": "training"},
    "training.tasks.features_forget_task": {"queue": "training"},
}
# The schedule is kept in the database, where the admin edits it. These entries are written there at every start of
# beat; when training starts is an entry that a migration made once, and that is free to be changed.
CELERY_BEAT_SCHEDULER = "django_celery_beat.schedulers:DatabaseScheduler"
CELERY_TIMEZONE = TIME_ZONE
DJANGO_CELERY_BEAT_TZ_AWARE = True
CELERY_BEAT_SCHEDULE = {
    # A sweep that is still waiting when the next one is due would find the same.
    "jobs-sweep": {
        "task": "captioner.tasks.jobs_sweep_task",
        "schedule": 20.0,
        "options": {"expires": 20.0},
    },
    "requests-sweep": {"task": "captioner.tasks.requests_sweep_task", "schedule": 3600.0},
    "captions-sweep": {"task": "captioner.tasks.captions_sweep_task", "schedule": 60.0},
    "photos-sweep": {"task": "captioner.tasks.photos_sweep_task", "schedule": 3600.0},
    "sessions-clear": {"task": "captioner.tasks.sessions_clear_task", "schedule": 24 * 3600.0},
    "imports-sweep": {
        "task": "captioner.tasks.imports_sweep_task",
        "schedule": 30.0,
        "options": {"expires": 30.0},
    },
    "training-features-forget": {
        "task": "training.tasks.features_forget_task",
        "schedule": 3600.0,
        "options": {"expires": 3600.0},
    },
    "training-runs-sweep": {"task": "training.tasks.runs_sweep_task", "schedule": 60.0},
}

# --- Learning ---------------------------------------------------------------------------------------------------

TRAINING_MIN_NEW_FEEDBACK = env_int("TRAINING_MIN_NEW_FEEDBACK", 50, minimum=1)
TRAINING_PROMOTE_TO = env_text(
    "TRAINING_PROMOTE_TO", "champion", choices=("champion", "challenger", "nothing")
)
TRAINING_ORIGINAL_PHOTOS = env_text("TRAINING_ORIGINAL_PHOTOS")
TRAINING_REPLAY_PHOTOS = env_text("TRAINING_REPLAY_PHOTOS")
TRAINING_FEATURES_MEGABYTES = env_int("TRAINING_FEATURES_MEGABYTES", 4000, minimum=100)
TRAINING_THREADS = env_int("TRAINING_THREADS", 0, minimum=0)  # 0: half of the cores, at least one
TRAINING_NICENESS = env_int("TRAINING_NICENESS", 19, minimum=0, maximum=19)
CODE_REVISION = env_text("CODE_REVISION")  # for images that hold no git checkout

# --- Logging and metrics ----------------------------------------------------------------------------------------

SENTRY_DSN = env_text("SENTRY_DSN")
OTEL_EXPORTER_OTLP_ENDPOINT = env_text("OTEL_EXPORTER_OTLP_ENDPOINT")
METRICS_DIR = DATA_DIR / "metrics" / gethostname()  # containers may share the folder, but not process ids
METRICS_TOKEN = env_text("METRICS_TOKEN")  # without one /metrics is off in production
LOG_LEVEL = env_text("LOG_LEVEL", "INFO", choices=("DEBUG", "INFO", "WARNING", "ERROR"))
LOG_FORMAT = env_text("LOG_FORMAT", "line", choices=("line", "json"))
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {
        "request_id": {"()": "captioner.http.middleware.request_id.RequestIdFilter"},
        "one_line": {"()": "captioner.ops.logs.OneLineFilter"},
    },
    "formatters": {
        "line": {"format": "{asctime} {levelname} [{request_id}] {name}: {message}", "style": "{"},
        "json": {"()": "captioner.ops.logs.JsonFormatter"},
    },
    "handlers": {
        "console": {"class": "logging.StreamHandler", "formatter": LOG_FORMAT, "filters": ["request_id"]}
    },
    "root": {
        "handlers": ["console"],
        "level": LOG_LEVEL,
    },
    # Every task received, done or due, and every request to the hub with its address, is a line otherwise; what they
    # do, tasks log themselves.
    "loggers": {
        # What strangers send needs no traceback of ours.
        "django.security.DisallowedHost": {"filters": ["one_line"]},
        **{
            name: {"level": "WARNING"}
            for name in ("celery.beat", "celery.worker.strategy", "celery.app.trace", "httpx2")
        },
    },
}
