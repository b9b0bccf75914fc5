"""A database or store that is down for now is a 503 that says when to come again, on pages and in the API."""

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.test import Client

from captioner.captions.captions import caption_delete
from captioner.exceptions import StorageUnavailable
from captioner.models import Caption, Photo
from captioner.ops import dependencies
from captioner.ops.storage import AtomicFileSystemStorage
from tests.conftest import FakeEngine


def fail(*args: object, **kwargs: object) -> None:
    raise OSError("No space left on device")


@pytest.fixture
def no_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AtomicFileSystemStorage, "_save", fail)
    monkeypatch.setattr(AtomicFileSystemStorage, "_open", fail)


def test_a_photo_that_cannot_be_stored_is_not_logged(
    user: User, client: Client, fake_engine: FakeEngine, photo_bytes: bytes, no_store: None
) -> None:
    client.force_login(user)
    answer = client.post("/api/v1/captions", photo_bytes, content_type="image/jpeg")
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "5"
    assert answer.json()["type"] == "urn:captioner:problem:storage-unavailable"
    assert not Caption.objects.exists()
    assert not Photo.objects.exists()


def test_a_photo_that_cannot_be_read_is_a_503(
    caption: Caption, user: User, client: Client, no_store: None
) -> None:
    client.force_login(user)
    answer = client.get(f"/api/v1/captions/{caption.pk}/photo")
    assert answer.status_code == 503
    assert answer.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["/captions/", "/api/v1/captions"])
def test_a_database_that_is_down_is_a_503(
    user: User, client: Client, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.force_login(user)
    client.raise_request_exception = False

    def down(*args: object) -> None:
        raise OperationalError("connection refused")

    monkeypatch.setattr("captioner.models.CaptionQuerySet.owned_by", down)
    answer = client.get(path)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "5"
    assert b"connection refused" not in answer.content


def test_a_defect_stays_a_500(user: User, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    client.force_login(user)
    client.raise_request_exception = False
    monkeypatch.setattr("captioner.models.CaptionQuerySet.owned_by", lambda *args: 1 / 0)
    assert client.get("/captions/").status_code == 500


def test_setup_waits_for_the_servers_and_says_which_one_is_missing(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    problems = iter(["The database cannot be reached: starting up", ""])
    monkeypatch.setattr(dependencies, "_problem", lambda: next(problems))
    monkeypatch.setattr(dependencies, "_PAUSE", 0)
    dependencies.servers_wait(10)
    monkeypatch.setattr(dependencies, "_problem", lambda: "The S3 store cannot be reached: no route")
    with pytest.raises(CommandError, match="in vain: The S3 store cannot be reached: no route"):
        call_command("setup", wait=0)


def test_a_caption_whose_photo_cannot_be_deleted_is_kept(
    caption: Caption, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AtomicFileSystemStorage, "delete", fail)
    with pytest.raises(StorageUnavailable):
        caption_delete(caption)
    assert Caption.objects.exists()
    assert Photo.objects.exists()
