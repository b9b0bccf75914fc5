"""`Idempotency-Key`: the same request twice makes one thing."""

import uuid
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from captioner.captions.api_keys import api_key_create
from captioner.celery import app
from captioner.exceptions import Overloaded
from captioner.http import idempotency
from captioner.models import Caption, IdempotentRequest, Job
from tests.captioner.api.test_jobs import two_photos
from tests.conftest import FakeEngine, draw_jpeg

URL = "/api/v1/captions"

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def program(user: User, fake_engine: FakeEngine) -> Client:
    _, secret = api_key_create(user, "script")
    return Client(headers={"Authorization": f"Bearer {secret}"})


def send(client: Client, photo: bytes, key: str | None = "k-1", query: str = ""):
    headers = {} if key is None else {"Idempotency-Key": key}
    return client.generic("POST", URL + query, photo, content_type="image/jpeg", headers=headers)


def send_form(client: Client, photo: bytes, key: str = "k-1"):
    from django.core.files.uploadedfile import SimpleUploadedFile

    fields = {"image": SimpleUploadedFile(f"{uuid.uuid4()}.jpg", photo)}
    return client.post(URL, fields, headers={"Idempotency-Key": key})


def test_the_same_request_twice_makes_one_caption(program: Client) -> None:
    first, second = send(program, draw_jpeg()), send(program, draw_jpeg())
    assert first.status_code == second.status_code == 201
    assert first.json() == second.json()
    assert second.headers["Location"] == first.headers["Location"]
    assert (first.headers.get("Idempotency-Replayed"), second.headers["Idempotency-Replayed"]) == (
        None,
        "true",
    )
    assert Caption.objects.count() == 1


def test_the_form_a_request_has_does_not_make_it_another(program: Client) -> None:
    assert send_form(program, draw_jpeg()).json() == send_form(program, draw_jpeg()).json()
    assert send(program, draw_jpeg()).json()["id"] == str(Caption.objects.get().pk)


def test_without_a_key_each_request_counts(program: Client) -> None:
    send(program, draw_jpeg(), None)
    send(program, draw_jpeg(), None)
    assert Caption.objects.count() == 2


@pytest.mark.parametrize(("photo", "query"), [("red", ""), ("teal", "?num_captions=2")])
def test_something_else_with_the_same_key_is_refused(program: Client, photo: str, query: str) -> None:
    send(program, draw_jpeg())
    response = send(program, draw_jpeg(colour=photo), query=query)
    assert response.status_code == 422
    assert response.json()["type"] == "urn:captioner:problem:idempotency-key-reused"


def test_a_repeat_while_the_first_is_under_way_is_told_to_wait(
    program: Client, fake_engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit, repeats = fake_engine.submit, []

    def meanwhile(*arguments: object):
        if not repeats:
            repeats.append(None)
            repeats[0] = send(program, draw_jpeg())
        return submit(*arguments)

    monkeypatch.setattr(fake_engine, "submit", meanwhile)
    assert send(program, draw_jpeg()).status_code == 201
    assert repeats[0].status_code == 409
    assert int(repeats[0].headers["Retry-After"]) >= 1
    assert Caption.objects.count() == 1


def test_what_failed_is_tried_again(program: Client, fake_engine: FakeEngine) -> None:
    fake_engine.error = Overloaded("busy", retry_after=1)
    assert send(program, draw_jpeg()).status_code == 429
    fake_engine.error = None
    assert send(program, b"no photo").status_code == 415
    assert send(program, draw_jpeg()).status_code == 201
    assert Caption.objects.count() == 1


def test_a_request_whose_process_died_is_taken_over(program: Client, user: User) -> None:
    long_ago = timezone.now() - timedelta(minutes=10)
    owner = f"key {user.api_keys.get().pk}"
    IdempotentRequest.objects.create(owner=owner, key="k-1", fingerprint="x", started_at=long_ago)
    assert send(program, draw_jpeg()).status_code == 201


def test_keys_of_different_people_are_different(program: Client, other_user: User) -> None:
    _, secret = api_key_create(other_user, "script")
    other = Client(headers={"Authorization": f"Bearer {secret}"})
    assert send(program, draw_jpeg()).json()["id"] != send(other, draw_jpeg()).json()["id"]


@pytest.mark.parametrize("key", ["", "x" * 256, "é", "a\tb"])
def test_a_key_is_short_and_printable(program: Client, key: str) -> None:
    response = send(program, draw_jpeg(), key)
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "Idempotency-Key"


def test_deleting_the_caption_forgets_the_request(program: Client) -> None:
    made = send(program, draw_jpeg()).json()
    program.delete(made["links"]["self"])
    assert not IdempotentRequest.objects.exists()


def test_old_requests_are_forgotten(program: Client) -> None:
    send(program, draw_jpeg())
    assert idempotency.requests_sweep() == 0
    IdempotentRequest.objects.update(started_at=timezone.now() - timedelta(days=2))
    assert idempotency.requests_sweep() == 1


def test_the_same_job_twice_is_one(program: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "send_task", lambda *_, **__: None)
    archive = two_photos()

    def send_job():
        headers = {"Idempotency-Key": "k-1"}
        return program.generic(
            "POST", "/api/v1/jobs", archive, content_type="application/zip", headers=headers
        )

    first, second = send_job(), send_job()
    assert first.status_code == second.status_code == 202
    assert first.json()["id"] == second.json()["id"]
    assert second.headers["Idempotency-Replayed"] == "true"
    assert Job.objects.count() == 1
