"""A worker of `make run` starts once the web server is ready."""

import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

from tests.house import ROOT


def test_it_waits_for_the_web_server_and_becomes_the_command() -> None:
    asked: list[str] = []

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(503 if len(asked) < 3 else 200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = [sys.executable, ROOT / "deploy" / "when_ready.py", sys.executable, "-c", "print('begun')"]
        environment = {**os.environ, "HOST": "0.0.0.0", "PORT": str(server.server_port)}  # noqa: S104
        environment["http_proxy"] = "http://127.0.0.1:9"  # which is for other machines than this
        result = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True, timeout=60
        )
        server.shutdown()
    assert (result.stdout, asked) == ("begun\n", ["/readyz"] * 3)
