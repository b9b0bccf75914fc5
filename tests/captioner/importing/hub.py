"""A small server that answers like the Hugging Face hub over folders: `Hub.folders` names them by id."""

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Hub:
    """`folders`: id -> revision -> folder. `cut`: how many bytes of a file are sent before the connection ends."""

    def __init__(self) -> None:
        self.folders: dict[str, dict[str, Path]] = {}
        self.cut: dict[str, int] = {}
        self.sent: Counter[str] = Counter()  # bytes of each file
        self.address = ""

    def commit(self, hub_id: str, revision: str) -> str:
        return hashlib.sha1(f"{hub_id}@{revision}".encode()).hexdigest()  # noqa: S324  a name, as git makes them

    def folder(self, hub_id: str, revision: str) -> Path | None:
        revisions = self.folders.get(hub_id, {})
        commits = {self.commit(hub_id, name): folder for name, folder in revisions.items()}
        return (revisions | commits).get(revision)

    @contextmanager
    def serving(self) -> Iterator[None]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
                if parts[:2] == ["api", "models"]:
                    hub_id, revision = "/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main"
                else:
                    hub_id, revision = "/".join(parts[:2]), "".join(parts[3:4])
                folder = hub.folder(hub_id, revision)
                if hub_id not in hub.folders:
                    self._answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
                elif folder is None:
                    self._answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
                elif parts[0] != "api":
                    self._file(folder / "/".join(parts[4:]))
                elif len(parts) > 4 and parts[4] == "tree":
                    self._answer(200, json.dumps([self._entry(path) for path in folder.iterdir()]).encode())
                else:
                    commits = {hub.folder(hub_id, name): name for name in hub.folders[hub_id]}
                    sha = hub.commit(hub_id, commits[folder])
                    self._answer(200, json.dumps({"id": hub_id, "modelId": hub_id, "sha": sha}).encode())

            def _entry(self, path: Path) -> dict[str, object]:
                if path.is_dir():
                    return {"type": "directory", "path": path.name, "oid": "0" * 40}
                data = path.read_bytes()
                entry: dict[str, object] = {
                    "type": "file",
                    "path": path.name,
                    "size": len(data),
                    "oid": "0" * 40,
                }
                if path.suffix in {".bin", ".safetensors"}:
                    oid = hashlib.sha256(data).hexdigest()
                    entry |= {"lfs": {"oid": oid, "size": len(data), "pointerSize": 130}}
                return entry

            def _file(self, path: Path) -> None:
                data, start = path.read_bytes(), 0
                if wanted := self.headers.get("Range"):
                    start = int(wanted.removeprefix("bytes=").partition("-")[0])
                body = data[start:]
                self.send_response(206 if start else 200)
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
                self.send_header("Content-Length", f"{len(body)}")
                self.end_headers()
                most = hub.cut.pop(path.name, len(body))
                self.wfile.write(body[:most])
                hub.sent[path.name] += min(most, len(body))
                self.close_connection = most < len(body)

            def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", f"{len(body)}")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nobody reads it."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        self.address = f"http://127.0.0.1:{server.server_port}"
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
