"""One HTTP client for real servers, and loads of several at a time."""

import itertools
import json
import random
import re
import threading
import time
import urllib.parse
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any

from tests.photos import draw_photo

TIMEOUT = 60  # seconds


@dataclass(frozen=True)
class Answer:
    status: int
    body: Any  # of JSON what it stands for, else bytes
    headers: dict[str, str]
    cookies: dict[str, str]  # that were set
    seconds: float
    finished_at: float  # time.monotonic()

    @property
    def cookie(self) -> dict[str, str]:
        """The header by which the caller stays the same visitor; empty where none was made."""
        return {"Cookie": cookies_join(self.cookies)} if self.cookies else {}


def cookies_join(cookies: dict[str, str]) -> str:
    return "; ".join(f"{name}={value}" for name, value in cookies.items())


class Client:
    """Requests to one server over one connection, kept open from one to the next unless `headers` say otherwise."""

    def __init__(self, url: str, *, timeout: float = TIMEOUT, **headers: str) -> None:
        parts = urllib.parse.urlsplit(url)
        connect = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._connection = connect(parts.netloc, timeout=timeout)
        self._headers = headers

    def close(self) -> None:
        self._connection.close()

    def request(
        self, path: str, data: bytes | None = None, *, method: str | None = None, **headers: str
    ) -> Answer:
        """One request; errors are answers too. Raises `OSError` when there was no answer."""
        given = {name.replace("_", "-"): value for name, value in (self._headers | headers).items()}
        started = time.monotonic()
        try:
            self._connection.request(method or ("GET" if data is None else "POST"), path, data, given)
            response = self._connection.getresponse()
            content = response.read()
        except HTTPException as error:
            self.close()
            raise ConnectionError(repr(error)) from error
        except OSError:
            self.close()
            raise
        finished = time.monotonic()
        is_json = "json" in response.headers.get("Content-Type", "")
        body = json.loads(content) if is_json else content
        pairs = (line.split(";")[0].split("=", 1) for line in response.headers.get_all("Set-Cookie", []))
        headers = dict(response.headers)
        return Answer(response.status, body, headers, dict(pairs), finished - started, finished)

    def caption(self, photo: bytes, **headers: str) -> Answer:
        return self.request("/api/v1/captions", photo, Content_Type="application/octet-stream", **headers)

    def caption_multipart(self, photo: bytes, query: str = "", **headers: str) -> Answer:
        """What `curl -F image=@photo.jpg` sends."""
        boundary = uuid.uuid4().hex
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="photo.jpg"\r\n'
            "Content-Type: image/jpeg\r\n\r\n"
        )
        body = b"".join((head.encode(), photo, f"\r\n--{boundary}--\r\n".encode()))
        kind = f"multipart/form-data; boundary={boundary}"
        return self.request(f"/api/v1/captions{query}", body, Content_Type=kind, **headers)


def request(url: str, data: bytes | None = None, *, method: str | None = None, **headers: str) -> Answer:
    """One request over a connection of its own; see `Client.request`."""
    path = urllib.parse.urlunsplit(("", "", *urllib.parse.urlsplit(url)[2:])) or "/"
    with closing(Client(url, Connection="close")) as client:
        return client.request(path, data, method=method, **headers)


def caption(url: str, photo: bytes, **headers: str) -> Answer:
    with closing(Client(url, Connection="close")) as client:
        return client.caption(photo, **headers)


def caption_multipart(url: str, photo: bytes, **headers: str) -> Answer:
    with closing(Client(url, Connection="close")) as client:
        return client.caption_multipart(photo, **headers)


class Browser:
    """Keeps cookies, follows redirections and sends Django's CSRF token along."""

    def __init__(self, url: str) -> None:
        self._client = Client(url, timeout=300)
        self._url = url
        self._cookies: dict[str, str] = {}

    def get(self, path: str) -> str:
        return self._open(path)

    def post(self, path: str, **fields: str) -> str:
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', self.get(path))
        assert token, path
        body = urllib.parse.urlencode(fields | {"csrfmiddlewaretoken": token[1]}).encode()
        return self._open(path, body, Content_Type="application/x-www-form-urlencoded")

    def _open(self, path: str, data: bytes | None = None, **headers: str) -> str:
        headers |= {"Cookie": cookies_join(self._cookies), "Referer": f"{self._url}{path}"}
        answer = self._client.request(path, data, **headers)
        self._cookies |= answer.cookies
        if answer.status in {301, 302, 303}:
            return self._open(urllib.parse.urljoin(path, answer.headers["Location"]))
        assert answer.status == 200, answer
        return answer.body.decode()


@dataclass
class Load:
    """Clients that each send the next photo once they were answered, until stopped or out of photos.

    What they were answered is in `answers`, in the order in which it came. An exception of `post` other than `OSError`
    ends its client and is raised by `wait`.
    """

    url: str
    clients: int
    headers: dict[str, str] = field(default_factory=dict)
    keep_alive: bool = False  # one connection for all that a client sends
    photos: Iterator[Any] = field(default_factory=lambda: map(draw_photo, itertools.count(1)))
    post: Callable[[Client, Any], Any] = Client.caption
    timeout: float = TIMEOUT
    pause: float = 0.0  # mean seconds before each photo, exponentially distributed
    answers: list[Any] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def __enter__(self) -> "Load":
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._pool = ThreadPoolExecutor(self.clients)
        self._runs = [self._pool.submit(self._run) for _ in range(self.clients)]
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stop.set()
        self.wait()

    def wait(self) -> None:
        """Return once there are no more photos."""
        self._pool.shutdown()
        for run in self._runs:
            run.result()

    def _run(self) -> None:
        headers = self.headers if self.keep_alive else self.headers | {"Connection": "close"}
        with closing(Client(self.url, timeout=self.timeout, **headers)) as client:
            while not self._stop.is_set():
                with self._lock:
                    photo = next(self.photos, None)
                if photo is None:
                    return
                if self.pause:
                    self._stop.wait(random.expovariate(1 / self.pause))
                try:
                    self.answers.append(self.post(client, photo))
                except OSError as error:
                    self.broken.append(repr(error))
                    self._stop.wait(0.05)

    def statuses(self) -> Counter[int]:
        return Counter(answer.status for answer in list(self.answers))

    def versions(self) -> Counter[str]:
        """How many captions each version wrote."""
        return Counter(a.body["model"]["version"] for a in list(self.answers) if a.status == 201)

    def seconds_without(self, status: int = 201) -> float:
        """From the first answer of another status to the last."""
        moments = [answer.finished_at for answer in self.answers if answer.status != status]
        return max(moments) - min(moments) if moments else 0.0

    def answered(self) -> set[str]:
        """The ids of the captions that clients were given."""
        return {answer.body["id"] for answer in list(self.answers) if answer.status == 201}
