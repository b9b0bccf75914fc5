"""GET /api/v1/captions/{id}"""

import uuid

import pytest
from django.contrib.auth.models import User
from django.test import Client

from captioner.captions.api_keys import api_key_create
from captioner.captions.captions import caption_create
from captioner.captions.feedback import feedback_review, feedback_submit
from captioner.models import Caption, Feedback, Owner
from tests.conftest import FakeEngine

URL = "/api/v1/captions"


def test_shows_what_creating_it_answered(
    client: Client, user: User, fake_engine: FakeEngine, photo_bytes: bytes
) -> None:
    client.force_login(user)
    created = client.generic("POST", f"{URL}?num_captions=3", photo_bytes, content_type="image/jpeg").json()
    response = client.get(created["links"]["self"])
    assert response.status_code == 200
    assert response.json() == created


def test_shows_feedback_without_its_reviewer(client: Client, user: User, caption: Caption) -> None:
    feedback_submit(caption, rating=2, ideal_caption="a teal field")
    client.force_login(user)
    feedback = client.get(f"{URL}/{caption.pk}").json()["feedback"]
    said = {"rating", "ideal_caption", "status", "created_at", "updated_at"}
    assert set(feedback) == said | {"states", "now_says"}
    assert (feedback["rating"], feedback["ideal_caption"], feedback["status"]) == (
        2,
        "a teal field",
        "pending",
    )


def test_user_sees_what_their_key_made(
    client: Client, user: User, fake_engine: FakeEngine, photo_bytes: bytes
) -> None:
    api_key, _ = api_key_create(user, "script")
    caption = caption_create(photo_bytes, owner=Owner(api_key=api_key), source=Caption.Source.API)
    client.force_login(user)
    assert client.get(f"{URL}/{caption.pk}").status_code == 200


def test_what_was_remembered_is_the_caption_and_the_models_own_stands_beside_it(
    client: Client, user: User, other_user: User, caption: Caption, reviewer: User
) -> None:
    feedback, _ = feedback_submit(caption, ideal_caption="a teal field")
    feedback_review(Feedback.objects.all(), Feedback.Status.APPROVED, reviewer=reviewer)
    again = Caption.objects.create(
        user=other_user,
        photo=caption.photo,
        source=Caption.Source.API,
        text="a blue wall",
        confidence=0.9,
        words=caption.words,
        origin=Caption.Origin.MEMORY,
        recalled=feedback,
    )
    client.force_login(other_user)
    answer = client.get(f"{URL}/{again.pk}").json()
    assert (answer["caption"], answer["machine_caption"], answer["source"]) == (
        "a teal field",
        "a blue wall",
        "memory",
    )
    assert (answer["confidence"], answer["words"]) == (None, [])
    assert [each["caption"] for each in client.get(f"{URL}?search=teal+field").json()["results"]] == [
        "a teal field"
    ]
    feedback.delete()
    answer = client.get(f"{URL}/{again.pk}").json()
    assert (answer["caption"], answer["source"], answer["confidence"]) == ("a blue wall", "model", 0.9)
    client.force_login(user)
    answer = client.get(f"{URL}/{caption.pk}").json()
    assert (answer["caption"], answer["source"]) == (answer["machine_caption"], "model")


@pytest.mark.django_db
def test_unknown_id(client: Client) -> None:
    response = client.get(f"{URL}/{uuid.uuid4()}")
    assert response.status_code == 404
    assert response.json()["detail"] == "You have no caption with this id."


@pytest.mark.parametrize("path", ["not-a-uuid", "1", "%00", "a/b", ""])
def test_malformed_id(client: Client, path: str) -> None:
    response = client.get(f"{URL}/{path}")
    assert response.status_code == 404
    assert response.headers["Content-Type"] == "application/problem+json"
