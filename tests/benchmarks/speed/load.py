"""Uploads of photos never sent before, and the latencies and captions that came of them."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from tests.benchmarks.speed.errors import BenchmarkError, NotReady
from tests.benchmarks.speed.photos import Photo
from tests.client import Client, Load

MAX_NEW_TOKENS = 30  # of every contender
_QUERY = f"?num_beams=1&max_new_tokens={MAX_NEW_TOKENS}"
_TIMEOUT = 300  # seconds
# Counts every upload of this process, so that no two are the same file.
_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Captioned:
    photo: str
    caption: str
    seconds: float
    finished_at: float  # time.monotonic()


def upload(client: Client, photo: Photo) -> Captioned:
    """Caption one photo. Raises `BenchmarkError` when it is refused, `NotReady` when nobody answers yet."""
    try:
        answer = client.caption_multipart(photo.variant(next(_numbers)), _QUERY)
    except OSError as error:
        raise NotReady(f"A server did not answer: {error!r}") from error
    if answer.status not in {200, 201}:
        problem = NotReady if answer.status == 503 else BenchmarkError
        raise problem(f"{photo.path.name} was answered with {answer.status}: {str(answer.body)[:300]}")
    return Captioned(photo.path.name, answer.body["caption"], answer.seconds, answer.finished_at)


def load_run(port: int, photos: Iterable[Photo], clients: int) -> list[Captioned]:
    """Upload `photos`, each client the next one as soon as it is answered; returns answers as they came.

    Every client keeps one connection open. Raises `BenchmarkError` as `upload` does.
    """
    url = f"http://127.0.0.1:{port}"
    load = Load(url, clients, keep_alive=True, photos=iter(photos), post=upload, timeout=_TIMEOUT)
    with load:
        load.wait()
    return sorted(load.answers, key=lambda answer: answer.finished_at)
