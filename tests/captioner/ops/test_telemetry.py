"""Errors and traces reach receivers on this machine; nothing is sent where no variable asks for it."""

import http.server
import os
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from captioner.ops import checks, telemetry

ROOT = Path(__file__).resolve().parents[3]
# A process of the service that fails one request and answers another.
SERVICE = """
import django
django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
from django.test import Client
from captioner.api import captions
def fail(*arguments, **options):
    raise ZeroDivisionError
captions.caption_create = fail
client = Client(raise_request_exception=False, headers={"Authorization": "Basic a-secret-key"})
assert client.generic("POST", "/api/v1/captions", b"private photo", content_type="image/jpeg").status_code == 500
assert client.get("/api/v1/captions").status_code == 200
"""
FLUSH_SENTRY = "import sentry_sdk; sentry_sdk.flush()"
FLUSH_TRACES = "from opentelemetry import trace; trace.get_tracer_provider().force_flush()"


class Receiver(http.server.BaseHTTPRequestHandler):
    """Takes whatever is posted."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = zlib.decompress(body, wbits=31)
        self.server.received.append((self.path, body))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[http.server.HTTPServer]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    server.received = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def serve(tmp_path: Path, flush: str, **variables: str) -> None:
    environment = {"PATH": os.environ["PATH"], "CAPTIONER_DATA_DIR": str(tmp_path), **variables}
    result = subprocess.run(
        [sys.executable, "-c", SERVICE + flush],
        cwd=ROOT,
        env=environment | {"DJANGO_SETTINGS_MODULE": "captioner.settings", "ALLOWED_HOSTS": "testserver"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_a_defect_is_reported_to_sentry_without_secrets(
    receiver: http.server.HTTPServer, tmp_path: Path
) -> None:
    serve(tmp_path, FLUSH_SENTRY, SENTRY_DSN=f"http://public@127.0.0.1:{receiver.server_port}/1")
    sent = b"".join(body for path, body in receiver.received if path.startswith("/api/1/envelope"))
    assert b"ZeroDivisionError" in sent
    assert b"a-secret-key" not in sent
    assert b"private photo" not in sent


def test_requests_are_traced_to_opentelemetry(receiver: http.server.HTTPServer, tmp_path: Path) -> None:
    endpoint = f"http://127.0.0.1:{receiver.server_port}"
    serve(tmp_path, FLUSH_TRACES, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint)
    [(path, body), *_] = receiver.received
    assert path == "/v1/traces"
    assert b"captioner" in body
    assert b"caption-list" in body or b"api/v1/captions" in body


def test_the_variables_alone_are_not_enough(settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert checks.check_telemetry(None) == []
    settings.SENTRY_DSN, settings.OTEL_EXPORTER_OTLP_ENDPOINT = "http://key@sentry/1", "http://collector:4318"
    assert checks.check_telemetry(None) == []
    monkeypatch.setattr(telemetry, "find_spec", lambda name: None)
    messages = checks.check_telemetry(None)
    assert [message.id for message in messages] == ["captioner.E007", "captioner.E006"]
    assert all("telemetry-requirements.txt" in message.hint for message in messages)
    telemetry.start()  # and nothing breaks
