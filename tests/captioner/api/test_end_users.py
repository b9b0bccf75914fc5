"""`user`: for whom a program with an API key asks."""

import json
import uuid

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from captioner.captions.api_keys import api_key_create
from captioner.jobs import worker
from captioner.models import Caption, Job
from captioner.serving.process import serving
from tests.captioner.api.test_create_caption import URL, encoded, post_body, post_form, post_json
from tests.conftest import FakeEngine


@pytest.fixture
def program(user: User, fake_engine: FakeEngine) -> Client:
    _, secret = api_key_create(user, "product")
    return Client(headers={"Authorization": f"Bearer {secret}"})


def test_it_may_be_sent_as_a_photo_may(program: Client, photo_bytes: bytes) -> None:
    answers = [
        post_form(program, photo_bytes, user="u-17"),
        post_json(program, {"image_base64": encoded(photo_bytes), "user": "u-17"}),
        post_body(program, photo_bytes, "?user=u-17"),
    ]
    assert [answer.json()["user"] for answer in answers] == ["u-17"] * 3
    assert post_form(program, photo_bytes).json()["user"] == ""
    assert Caption.objects.filter(end_user="u-17", api_key__isnull=False).count() == 3
    listed = program.get(f"{URL}?user=u-17").json()["results"]
    assert {caption["user"] for caption in listed} == {"u-17"}
    assert len(listed) == 3


@pytest.mark.parametrize("name", ["", " ", "x" * 129, "a\0b"])
def test_what_is_no_name_is_refused(program: Client, photo_bytes: bytes, name: str) -> None:
    response = post_json(program, {"image_base64": encoded(photo_bytes), "user": name})
    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == ["user"]


def test_only_a_key_asks_for_others(client: Client, photo_bytes: bytes, user: User) -> None:
    client.force_login(user)
    response = post_form(client, photo_bytes, user="u-17")
    assert response.status_code == 422
    assert "API key" in response.json()["errors"][0]["detail"]
    assert not Caption.objects.exists()


def test_another_end_user_makes_another_request_of_the_same_key(program: Client, photo_bytes: bytes) -> None:
    def send(name: str):
        fields = {"image_base64": encoded(photo_bytes), "user": name}
        return program.post(
            URL, json.dumps(fields), content_type="application/json", headers={"Idempotency-Key": "1"}
        )

    assert [send("one").status_code, send("one").status_code, send("two").status_code] == [201, 201, 422]


@pytest.mark.django_db(transaction=True)
def test_a_job_asks_for_somebody_as_well(
    program: Client, photo_bytes: bytes, fake_engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "refresh", lambda **_: fake_engine)
    fields = {"image": SimpleUploadedFile("a.jpg", photo_bytes), "user": "u-17", "num_beams": 2}
    response = program.post("/api/v1/jobs", fields)
    assert (response.status_code, response.json()["user"]) == (202, "u-17")
    assert Job.objects.get().options == {"num_beams": 2}
    worker.job_photos_caption(uuid.UUID(response.json()["id"]), [0])
    assert Caption.objects.get().end_user == "u-17"
