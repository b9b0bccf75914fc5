"""The log is read by its indexes, whatever its size."""

import uuid

import pytest
from django.contrib.auth.models import User

from captioner.models import ApiKey, Caption, Feedback, Owner

pytestmark = pytest.mark.django_db


def plan(queryset) -> str:
    return queryset.explain()


def test_each_kind_of_owner_reads_their_history_from_an_index_in_order(user: User) -> None:
    key = ApiKey.objects.create(user=user, name="script", prefix="p", digest="d")
    owners = {
        "caption_user_newest": Owner(user=user),
        "caption_api_key_newest": Owner(api_key=key),
        "caption_visitor_newest": Owner(visitor=uuid.uuid4()),
    }
    for index, owner in owners.items():
        explanation = plan(Caption.objects.owned_by(owner)[:20])
        assert index in explanation
        assert "TEMP B-TREE" not in explanation, "the index gives the order too"


def test_the_review_queue_is_read_from_an_index_in_order() -> None:
    explanation = plan(Feedback.objects.pending()[:20])
    assert "feedback_review_queue" in explanation
    assert "TEMP B-TREE" not in explanation


def test_all_captions_are_read_newest_first_from_an_index() -> None:
    explanation = plan(Caption.objects.all()[:20])
    assert "caption_newest" in explanation
    assert "TEMP B-TREE" not in explanation
