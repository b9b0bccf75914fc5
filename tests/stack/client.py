"""A small HTTP client for the real service, over connections of its own."""

import io
import json
import random
import threading
import time
import urllib.error
import urllib.request
import uuid
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from PIL import Image, ImageDraw


@dataclass(frozen=True)
class Answer:
    status: int
    body: Any
    headers: dict[str, str]


def request(url: str, data: bytes | None = None, *, method: str | None = None, **headers: str) -> Answer:
    """One request; HTTP errors are answers too. Raises `OSError` when there was no answer."""
    call = urllib.request.Request(
        url,
        data=data,
        method=method,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )
    try:
        with urllib.request.urlopen(call, timeout=60) as response:
            return _answer(response.status, response.read(), dict(response.headers))
    except urllib.error.HTTPError as error:
        return _answer(error.code, error.read(), dict(error.headers))


def _answer(status: int, content: bytes, headers: dict[str, str]) -> Answer:
    is_json = "json" in headers.get("Content-Type", "")
    return Answer(status, json.loads(content) if is_json else content, headers)


def caption(url: str, photo: bytes, **headers: str) -> Answer:
    return request(f"{url}/api/v1/captions", photo, Content_Type="application/octet-stream", **headers)


def caption_multipart(url: str, photo: bytes, **headers: str) -> Answer:
    """What `curl -F image=@photo.jpg` sends."""
    boundary = uuid.uuid4().hex
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="photo.jpg"\r\n\r\n'
    body = head.encode() + photo + f"\r\n--{boundary}--\r\n".encode()
    return request(
        f"{url}/api/v1/captions", body, Content_Type=f"multipart/form-data; boundary={boundary}", **headers
    )


def draw_photo(number: int) -> bytes:
    """A JPEG unlike those of other numbers."""
    image = Image.new("RGB", (320, 240), (number * 37 % 256, number * 91 % 256, 140))
    ImageDraw.Draw(image).ellipse((40, 30, 200 + number % 90, 180), fill=(250, number * 53 % 256, 60))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG")
    return buffer.getvalue()


def draw_scene(number: int) -> bytes:
    """A JPEG whose difference hash is unlike those of other numbers."""
    generator = random.Random(number)
    image = Image.new("RGB", (96, 72))
    draw = ImageDraw.Draw(image)
    for left in range(0, 96, 12):
        for top in range(0, 72, 9):
            colour = tuple(generator.randrange(256) for _ in range(3))
            draw.rectangle((left, top, left + 12, top + 9), fill=colour)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def archive(photos: list[bytes]) -> bytes:
    """A ZIP of photos."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as zipped:
        for number, photo in enumerate(photos):
            zipped.writestr(f"{number:04}.jpg", photo)
    return file.getvalue()


@dataclass
class Load:
    """Clients that send one photo after the other until stopped, and remember what they were answered."""

    url: str
    clients: int
    headers: dict[str, str] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    timeline: list[tuple[float, int]] = field(default_factory=list)  # of time.monotonic() and status

    def __enter__(self) -> "Load":
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, client: int) -> None:
        number = client * 10_000
        while not self._stop.is_set():
            number += 1
            try:
                answer = caption(self.url, draw_photo(number), **self.headers)
                self.answers.append(answer)
                self.timeline.append((time.monotonic(), answer.status))
            except (OSError, ValueError) as error:
                self.broken.append(repr(error))
                self._stop.wait(0.05)

    def statuses(self) -> Counter[int]:
        return Counter(answer.status for answer in list(self.answers))

    def seconds_without(self, status: int = 201) -> float:
        """From the first answer of another status to the last."""
        moments = [moment for moment, given in self.timeline if given != status]
        return max(moments) - min(moments) if moments else 0.0

    def answered(self) -> set[str]:
        """The ids of the captions that clients were given."""
        return {answer.body["id"] for answer in list(self.answers) if answer.status == 201}
