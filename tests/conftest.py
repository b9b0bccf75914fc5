"""Shared fixtures. Nothing here starts a server or loads a real model: see tests/stack and tests/e2e for that."""

# ruff: noqa: E402  the environment comes before everything that reads it
import os
import socket
import tempfile
from pathlib import Path

# Tests never touch the developer's own data, whatever the shell they are started from says.
_DATA_DIR = tempfile.TemporaryDirectory(prefix="captioner-tests-")
Path(_DATA_DIR.name, "static").mkdir()
_OURS = (
    "CAPTION",
    "DATABASE_",
    "REDIS_",
    "CELERY_",
    "S3_",
    "SECRET_",
    "ALLOWED_",
    "CSRF_",
    "WEB_",
    "HOST_",
    "PORT",
    "RATE_",
    "TRAINING_",
    "TRUSTED_",
    "METRICS_",
    "MEMORY_",
    "LOG_",
    "JOB_",
    "SENTRY_",
    "OTEL_",
)
for _name in [name for name in os.environ if name.startswith(_OURS) or name == "HOST"]:
    del os.environ[_name]
os.environ |= {
    "CAPTIONER_DATA_DIR": _DATA_DIR.name,
    "DJANGO_SETTINGS_MODULE": "captioner.settings",
    "SECRET_KEY": "the same one every time, for the split of photos hangs on it",
    "OMP_NUM_THREADS": "1",  # tests share the cores with each other; what they compute is tiny
    # As in a process of the servers.
    "PROMETHEUS_MULTIPROC_DIR": str(Path(_DATA_DIR.name, "metrics", socket.gethostname())),
}

import django

django.setup()

from django.conf import settings

from captioner.ops import metrics
from captioner.ops.storage import data_dir_ensure

# A file, as the embedded default is: in memory all connections would share one cache, where a reader meets a writer
# with "database table is locked". What tests write need not outlive the machine.
settings.DATABASES["default"]["TEST"]["NAME"] = Path(_DATA_DIR.name, "tests.sqlite3")
settings.DATABASES["default"]["OPTIONS"]["init_command"] += "PRAGMA synchronous=OFF;"

data_dir_ensure()
metrics.process_begin()

import uuid
from collections import Counter
from concurrent.futures import Future
from dataclasses import replace

import numpy as np
import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.test import Client
from PIL import Image

from captioner.captions.captions import caption_create
from captioner.inference.types import Candidate, DecodingParameters, NextWords, Prediction, Word
from captioner.models import Caption, Owner
from captioner.serving.engine import Ticket
from captioner.serving.process import serving
from tests.photos import draw_jpeg


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    """Workers start with this process's environment, and pytest-django would read settings in it at once, before the
    worker's own conftest has made a data folder for it."""
    del os.environ["DJANGO_SETTINGS_MODULE"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """One line on what was not run, and how to get it."""
    skipped = Counter(
        report.longrepr[2].removeprefix("Skipped: ") for report in terminalreporter.getreports("skipped")
    )
    left_out = [f"{count} tests ({reason})" for reason, count in skipped.items()]
    if config.getoption("markexpr") == "not stack":
        left_out.append("those of real servers (`make test-all`; .ci/run names the packages)")
    if left_out:
        terminalreporter.write_line(f"Not run: {'; '.join(left_out)}.", yellow=True)


class FakeEngine:
    """Answers every photo at once with its size, or raises `error` from `submit`."""

    model_name = "fake"
    model_version = "fake-1"
    default_parameters = DecodingParameters()

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.full: Exception | None = None  # what is said before a photo is decoded
        self.never_answers = False
        self.confidence: float | None = None
        self.beams: tuple[str, ...] = ()  # what it finds besides its caption
        self.encoder = ""  # once it has a name, photos have vectors
        self.submitted: list[DecodingParameters] = []
        self.futures: list[Future[Prediction]] = []

    challenger = previous = None

    @property
    def champion(self) -> "FakeEngine":
        return self

    @property
    def predictor(self) -> "FakeEngine":
        return self

    def versions(self) -> list["FakeEngine"]:
        return [self]

    def room_check(self, parameters: DecodingParameters | None, deadline: float) -> None:
        if self.full is not None:
            raise self.full

    def photo_submit(
        self, image: Image.Image, sha256: str, parameters: DecodingParameters | None, deadline: float
    ) -> Ticket:
        return Ticket(self, image, sha256, parameters, deadline)

    def submit(
        self, image: Image.Image, parameters: DecodingParameters, deadline: float
    ) -> "Future[Prediction]":
        if self.error is not None:
            raise self.error
        self.submitted.append(parameters)
        future: Future[Prediction] = Future()
        self.futures.append(future)
        if not self.never_answers:
            prediction = fake_prediction(image, parameters.num_captions, self.confidence)
            if isinstance(parameters, NextWords):
                prediction = fake_next_words(parameters.prefix)
            others = tuple(replace(prediction.candidates[0], caption=beam) for beam in self.beams)
            future.set_result(
                replace(
                    prediction,
                    beams=(*prediction.candidates, *others),
                    vector=fake_vector(image) if self.encoder else b"",
                    encoder=self.encoder,
                )
            )
        return future


def fake_vector(image: Image.Image) -> bytes:
    """What an eye would see that knows nothing but colours and where they are."""
    pixels = np.asarray(image.resize((8, 8), Image.Resampling.BOX), np.float32).ravel()
    pixels -= pixels.mean()
    return (pixels / max(1.0, float(np.linalg.norm(pixels)))).astype("<f2").tobytes()


def fake_prediction(image: Image.Image, num_captions: int, confidence: float | None = None) -> Prediction:
    candidates = tuple(
        Candidate(
            caption=f"a {image.width} by {image.height} photo" + (f" number {rank}" if rank else ""),
            words=(Word("a", 0.9), Word("photo", 0.4)),
            log_probability=-1.0 - rank,
            token_log_probabilities=(-0.1, -0.9),
            confidence=confidence,
        )
        for rank in range(num_captions)
    )
    return Prediction(
        candidates=candidates,
        model_version="fake-1",
        queue_seconds=0.001,
        inference_seconds=0.02,
        batch_size=1,
    )


def fake_next_words(prefix: str) -> Prediction:
    """How `FakeEngine` goes on: with a new word and a rest, the same word, a longer last word, and nothing."""
    captions = [f"{prefix} {rest}".strip() for rest in ("hill of grass", "photo again", "hill of sand")]
    captions += [f"{prefix}s here", prefix]
    candidates = tuple(
        Candidate(caption, tuple(Word(word, 0.5) for word in caption.split()), -1.0, (-1.0,))
        for caption in captions
    )
    return Prediction(candidates, "fake-1", 0.001, 0.02, 1)


def metric(client: Client, sample: str) -> float:
    """The number after `sample` on /metrics, 0 where there is none yet."""
    for line in client.get("/metrics").content.decode().splitlines():
        name, _, number = line.rpartition(" ")
        if name == sample:
            return float(number)
    return 0.0


@pytest.fixture(autouse=True)
def _isolated_storage(settings, tmp_path: Path) -> None:
    """Photos and weights of each test go to a folder of its own; static files need no collecting."""
    storages = {name: dict(config) for name, config in settings.STORAGES.items()}
    for name in ("default", "weights", "uploads"):
        storages[name] = {
            "BACKEND": "captioner.ops.storage.AtomicFileSystemStorage",
            "OPTIONS": {"location": tmp_path / name, "allow_overwrite": True},
        }
    storages["staticfiles"] = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    settings.STORAGES = storages


@pytest.fixture(autouse=True)
def _fast_passwords(settings) -> None:
    """Hashing that is slow on purpose would be most of the run."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture(autouse=True)
def _fresh_counts() -> None:
    """Nobody has asked for anything yet."""
    cache.clear()


@pytest.fixture
def fake_engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """Replaces this process's engine, so that everything around the model can be tested without one."""
    engine = FakeEngine()
    monkeypatch.setattr(serving, "engine", lambda: engine)
    return engine


@pytest.fixture
def photo_bytes() -> bytes:
    return draw_jpeg()


@pytest.fixture
def user(db: None) -> User:
    return User.objects.create_user("ada", password="correct horse battery")


@pytest.fixture
def other_user(db: None) -> User:
    return User.objects.create_user("bob", password="correct horse battery")


@pytest.fixture
def reviewer(db: None) -> User:
    return User.objects.create_superuser("rita", password="correct horse battery")


@pytest.fixture
def visitor() -> Owner:
    return Owner(visitor=uuid.uuid4())


@pytest.fixture
def caption(user: User, fake_engine: FakeEngine, photo_bytes: bytes) -> Caption:
    """A logged caption of `user`, made through the service like any other."""
    return caption_create(photo_bytes, owner=Owner(user=user), source=Caption.Source.WEB)
