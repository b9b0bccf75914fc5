"""Feedback waits for review, and is replaced by what is said later."""

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from captioner.captions.feedback import feedback_review, feedback_submit
from captioner.exceptions import InvalidFeedback
from captioner.models import Caption, Feedback

pytestmark = pytest.mark.django_db


def test_feedback_waits_for_review(caption: Caption) -> None:
    feedback, _ = feedback_submit(caption, rating=4, ideal_caption="  a teal\n square ")
    assert (feedback.rating, feedback.ideal_caption, feedback.status) == (4, "a teal square", "pending")


def test_saying_it_again_replaces_it_and_asks_for_a_new_review(caption: Caption, reviewer: User) -> None:
    feedback_submit(caption, rating=4)
    feedback_review(Feedback.objects.all(), Feedback.Status.APPROVED, reviewer=reviewer)
    feedback_submit(caption, rating=9)
    feedback = Feedback.objects.get()
    assert (feedback.rating, feedback.status, feedback.reviewed_by, feedback.reviewed_at) == (
        9,
        "pending",
        None,
        None,
    )


@pytest.mark.parametrize(
    ("given", "field", "complaint"),
    [
        ({}, "rating", "a rating from 1 to 10, a better caption, or both"),
        ({"ideal_caption": " \n "}, "rating", "a better caption"),
        ({"rating": 0}, "rating", "from 1 to 10, not 0"),
        ({"rating": 11}, "rating", "from 1 to 10, not 11"),
        ({"ideal_caption": "x" * 501}, "ideal_caption", "has 501 characters; at most 500"),
    ],
)
def test_feedback_that_says_nothing_or_too_much_is_refused(
    caption: Caption, given: dict, field: str, complaint: str
) -> None:
    with pytest.raises(InvalidFeedback, match=complaint) as caught:
        feedback_submit(caption, **given)
    assert caught.value.field == field
    assert not Feedback.objects.exists()


def test_a_review_records_who_and_when_and_counts_what_changed(caption: Caption, reviewer: User) -> None:
    feedback_submit(caption, rating=4)
    before = timezone.now()
    assert feedback_review(Feedback.objects.all(), Feedback.Status.REJECTED, reviewer=reviewer) == 1
    assert feedback_review(Feedback.objects.all(), Feedback.Status.REJECTED, reviewer=reviewer) == 0
    feedback = Feedback.objects.get()
    assert (feedback.status, feedback.reviewed_by) == ("rejected", reviewer)
    assert before <= feedback.reviewed_at <= timezone.now()
