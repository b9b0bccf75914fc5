"""Settings are read once at import, so each case looks at a fresh process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PRODUCTION = {"CAPTIONER_PRODUCTION": "1", "SECRET_KEY": "k" * 60, "ALLOWED_HOSTS": "captions.example.org"}


def read_settings(tmp_path: Path, expression: str, **environment: str) -> object:
    result = run(
        tmp_path,
        f"import json; from captioner import settings as s; print(json.dumps({expression}, default=str))",
        environment,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def run(tmp_path: Path, code: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={
            "CAPTIONER_DATA_DIR": str(tmp_path),
            "DJANGO_SETTINGS_MODULE": "captioner.settings",
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_default_needs_no_server_and_writes_only_to_the_data_folder(tmp_path: Path) -> None:
    engine, name, broker, folder, photos = read_settings(
        tmp_path,
        "[s.DATABASES['default']['ENGINE'], str(s.DATABASES['default']['NAME']), s.CELERY_BROKER_URL,"
        " s.CELERY_BROKER_TRANSPORT_OPTIONS['data_folder_in'], str(s.STORAGES['default']['OPTIONS']['location'])]",
    )
    assert (engine, broker) == ("django.db.backends.sqlite3", "filesystem://localhost/")
    assert all(Path(path).is_relative_to(tmp_path) for path in (name, folder, photos))


def test_the_generated_secret_key_is_kept_and_private(tmp_path: Path) -> None:
    first, second = (read_settings(tmp_path, "s.SECRET_KEY") for _ in range(2))
    assert first == second
    assert len(first) >= 50
    assert (tmp_path / "secret_key").stat().st_mode & 0o077 == 0


def test_variables_switch_to_postgresql_redis_and_s3(tmp_path: Path) -> None:
    engine, broker, backend, options = read_settings(
        tmp_path,
        "[s.DATABASES['default']['ENGINE'], s.CELERY_BROKER_URL, s.STORAGES['weights']['BACKEND'],"
        " s.STORAGES['weights']['OPTIONS']]",
        DATABASE_URL="postgres://c:p@db:5432/captioner",
        REDIS_URL="redis://cache:6379/1",
        S3_ENDPOINT_URL="http://minio:9000",
        S3_BUCKET="captioner",
        S3_ACCESS_KEY="key",
        S3_SECRET_KEY="secret",
    )
    assert engine == "django.db.backends.postgresql"
    assert broker == "redis://cache:6379/1"
    assert backend == "storages.backends.s3.S3Storage"
    assert options["bucket_name"] == "captioner"
    assert options["location"] == "weights"


@pytest.mark.parametrize(
    ("environment", "complaint"),
    [
        ({"DATABASE_URL": "garbage"}, "DATABASE_URL is no database URL"),
        ({"DATABASE_URL": "mysql://u:p@host/captioner"}, "a server that Captioner does not work with"),
        ({"LOG_LEVEL": "loud"}, "use one of: DEBUG, INFO"),
        ({"WEB_WORKERS": "abc"}, "WEB_WORKERS='abc' is not a whole number"),
        ({"WEB_THREADS": "0"}, "WEB_THREADS=0 is too small"),
        ({"TIME_ZONE": "Mars/X"}, "TIME_ZONE='Mars/X' is no time zone; write e.g. Europe/Berlin."),
        ({"CAPTIONER_DATA_DIR": "/dev/null/below"}, "Point CAPTIONER_DATA_DIR at a folder"),
    ],
)
def test_what_cannot_work_is_said(tmp_path: Path, environment: dict[str, str], complaint: str) -> None:
    result = run(tmp_path, "from captioner import settings; str(settings.SECRET_KEY)", environment)
    assert result.returncode == 1
    assert complaint in result.stderr.splitlines()[-1]


def test_commands_tell_what_cannot_work_and_nothing_else(tmp_path: Path) -> None:
    code = "import sys, manage; sys.argv = ['manage.py', 'setup']; manage.main()"
    result = run(tmp_path, code, {"WEB_THREADS": "0"})
    assert result.returncode == 1
    assert result.stderr == "WEB_THREADS=0 is too small; the least allowed is 1.\n"


def test_web_processes_share_the_cores(tmp_path: Path) -> None:
    assert read_settings(tmp_path, "s.CAPTION_THREADS") == 0
    assert read_settings(tmp_path, "s.CAPTION_THREADS", WEB_WORKERS="64") == 1
    assert read_settings(tmp_path, "s.CAPTION_THREADS", WEB_WORKERS="64", CAPTION_THREADS="3") == 3


def test_what_is_made_in_the_data_folder_is_its_owners_only(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o755)
    code = "import os, sys, manage; os.umask(0o022); sys.argv = ['manage.py', 'setup']; manage.main()"
    result = run(tmp_path, code, {"CAPTIONER_DATA_DIR": str(data)})
    assert result.returncode == 0, result.stderr
    private = [data, data / "tmp", data / "captioner.sqlite3", data / "secret_key", data / "weights"]
    assert not [path for path in private if path.stat().st_mode & 0o077]


def test_a_command_that_needs_nothing_writes_nothing(tmp_path: Path) -> None:
    code = "import sys, manage; sys.argv = ['manage.py', 'help']; manage.main()"
    result = run(tmp_path, code, {"CAPTIONER_DATA_DIR": str(tmp_path / "data")})
    assert result.returncode == 0, result.stderr
    assert not (tmp_path / "data").exists()


def test_production_refuses_to_start_without_a_secret_key(tmp_path: Path) -> None:
    result = run(tmp_path, "import captioner.settings", {"CAPTIONER_PRODUCTION": "1"})
    assert result.returncode == 1
    assert "needs SECRET_KEY (or SECRET_KEY_FILE)" in result.stderr


@pytest.mark.parametrize(
    ("environment", "expected"),
    [({}, True), (PRODUCTION, False), (PRODUCTION | {"CAPTIONER_ALLOW_ANONYMOUS": "yes"}, True)],
)
def test_anonymous_use_is_on_by_default_and_off_in_production_unless_set(
    tmp_path: Path, environment: dict[str, str], expected: bool
) -> None:
    assert read_settings(tmp_path, "s.ALLOW_ANONYMOUS", **environment) is expected


def test_production_is_safe_in_browsers_and_limits_callers(tmp_path: Path) -> None:
    secure, redirect, hsts, proxies, rates, policy = read_settings(
        tmp_path,
        "[[s.SESSION_COOKIE_SECURE, s.CSRF_COOKIE_SECURE], s.SECURE_SSL_REDIRECT, s.SECURE_HSTS_SECONDS,"
        " s.TRUSTED_PROXIES, s.RATE_LIMITS, s.CONTENT_SECURITY_POLICY['DIRECTIVES']]",
        **PRODUCTION,
    )
    assert (secure, redirect, proxies) == ([True, True], True, 1)
    assert hsts >= 180 * 24 * 3600
    assert all(rates.values())
    assert policy["upgrade-insecure-requests"] is True


def test_the_default_trusts_no_proxy_and_limits_only_signing_in(tmp_path: Path) -> None:
    proxies, rates = read_settings(tmp_path, "[s.TRUSTED_PROXIES, s.RATE_LIMITS]", RATE_LIMIT_KEY="10/s")
    assert proxies == 0
    assert rates == {
        "key": [10, 1],
        "user": None,
        "address": None,
        "sign_in": [10, 300],
        "sign_in_address": [300, 300],
    }


def test_rates_are_counted_in_redis_where_there_is_one(tmp_path: Path) -> None:
    caches = read_settings(tmp_path, "s.CACHES['default']", REDIS_URL="redis://cache:6379/1")
    assert caches["BACKEND"] == "django.core.cache.backends.redis.RedisCache"
    assert caches["LOCATION"] == "redis://cache:6379/1"
