"""POST /api/v1/captions/{id}/feedback"""

import pytest
from django.contrib.auth.models import User
from django.test import Client

from captioner.captions.feedback import feedback_review
from captioner.models import Caption, Feedback


@pytest.fixture
def ada(client: Client, user: User) -> Client:
    client.force_login(user)
    return client


def give(client: Client, caption: Caption, body: object, content_type: str = "application/json"):
    return client.post(f"/api/v1/captions/{caption.pk}/feedback", body, content_type=content_type)


@pytest.mark.parametrize(
    ("sent", "rating", "ideal_caption"),
    [
        ({"rating": 1}, 1, ""),
        ({"rating": "10"}, 10, ""),
        ({"ideal_caption": "a dog"}, None, "a dog"),
        ({"rating": 3, "ideal_caption": "  two\n dogs "}, 3, "two dogs"),
        ({"rating": None, "ideal_caption": "a dog"}, None, "a dog"),
        ({"rating": 3, "ideal_caption": None}, 3, ""),
        ({"rating": 3, "ideal_caption": ""}, 3, ""),
    ],
)
def test_is_recorded_as_pending(
    ada: Client, caption: Caption, sent: dict[str, object], rating: int | None, ideal_caption: str
) -> None:
    response = give(ada, caption, sent)
    assert response.status_code == 201
    body = response.json()
    assert (body["rating"], body["ideal_caption"], body["status"]) == (rating, ideal_caption, "pending")
    feedback = Feedback.objects.get(caption=caption)
    assert (feedback.rating, feedback.ideal_caption) == (rating, ideal_caption)


def test_again_replaces_and_is_reviewed_anew(ada: Client, caption: Caption, reviewer: User) -> None:
    give(ada, caption, {"rating": 1, "ideal_caption": "a dog"})
    feedback_review(Feedback.objects.all(), Feedback.Status.APPROVED, reviewer=reviewer)
    response = give(ada, caption, {"rating": 9})
    assert response.status_code == 200
    assert (response.json()["rating"], response.json()["status"]) == (9, "pending")
    assert Feedback.objects.get().ideal_caption == ""


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        ({}, "rating"),
        ({"rating": None}, "rating"),
        ({"ideal_caption": "   "}, "rating"),
        ({"rating": 0}, "rating"),
        ({"rating": 11}, "rating"),
        ({"rating": 5.5}, "rating"),
        ({"rating": "good"}, "rating"),
        ({"rating": True}, "rating"),
        ({"ideal_caption": "x" * 1501}, "ideal_caption"),
        ({"ideal_caption": "nul\0"}, "ideal_caption"),
        ({"ideal_caption": "half a pair: \ud800"}, "ideal_caption"),
        ({"ideal_caption": ["a dog"]}, "ideal_caption"),
    ],
)
def test_invalid_feedback_names_the_field(
    ada: Client, caption: Caption, sent: dict[str, object], field: str
) -> None:
    response = give(ada, caption, sent)
    assert response.status_code == 422
    assert response.json()["type"] == "urn:captioner:problem:invalid-fields"
    assert [error["field"] for error in response.json()["errors"]] == [field]
    assert not Feedback.objects.exists()


def test_every_invalid_field_is_named(ada: Client, caption: Caption) -> None:
    errors = give(ada, caption, {"rating": 0, "ideal_caption": "x" * 1501}).json()["errors"]
    assert {error["field"] for error in errors} == {"rating", "ideal_caption"}


def test_only_json_is_read(ada: Client, caption: Caption) -> None:
    response = give(ada, caption, "rating=3", "application/x-www-form-urlencoded")
    assert response.status_code == 415
    assert response.json()["supported"] == ["application/json"]
