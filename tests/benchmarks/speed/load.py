"""Clients that upload photos over connections they keep open, and the latencies and captions they got."""

import itertools
import json
import time
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException

from tests.benchmarks.speed.errors import BenchmarkError, NotReady
from tests.benchmarks.speed.photos import Photo

MAX_NEW_TOKENS = 30  # of every contender
PATH = f"/api/v1/captions?num_beams=1&max_new_tokens={MAX_NEW_TOKENS}"
_TIMEOUT = 300  # seconds
_BOUNDARY = uuid.uuid4().hex
_HEAD = (
    f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="photo.jpg"\r\n'
    "Content-Type: image/jpeg\r\n\r\n"
).encode()
_TAIL = f"\r\n--{_BOUNDARY}--\r\n".encode()
_HEADERS = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}
# Counts every upload of this process, so that no two are the same file.
_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Answer:
    photo: str
    caption: str
    seconds: float
    finished_at: float  # time.perf_counter()


def upload(connection: HTTPConnection, photo: Photo) -> Answer:
    """Caption one photo. Raises `BenchmarkError` when refused, `OSError` or `HTTPException` if unanswered."""
    body = b"".join((_HEAD, photo.variant(next(_numbers)), _TAIL))
    started = time.perf_counter()
    connection.request("POST", PATH, body, _HEADERS)
    response = connection.getresponse()
    content = response.read()
    finished = time.perf_counter()
    if response.status not in {200, 201}:
        problem = NotReady if response.status == 503 else BenchmarkError
        text = content[:300].decode(errors="replace")
        raise problem(f"{photo.path.name} was answered with {response.status}: {text}")
    return Answer(photo.path.name, json.loads(content)["caption"], finished - started, finished)


def load_run(port: int, photos: Iterable[Photo], clients: int) -> list[Answer]:
    """Upload `photos`, each client the next one as soon as it is answered; returns answers as they came.

    Raises `BenchmarkError` when the server refuses a photo or does not answer.
    """
    queue = iter(photos)
    with ThreadPoolExecutor(clients) as pool:
        runs = [pool.submit(_client_run, port, queue) for _ in range(clients)]
        answers = [answer for run in runs for answer in run.result()]
    return sorted(answers, key=lambda answer: answer.finished_at)


def _client_run(port: int, queue: Iterator[Photo]) -> list[Answer]:
    connection = HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT)
    try:
        return [upload(connection, photo) for photo in queue]
    except (OSError, HTTPException) as error:
        raise NotReady(f"A server did not answer: {error!r}") from error
    finally:
        connection.close()
