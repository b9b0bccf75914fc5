"""Feedback waits for review, and is replaced by what is said later."""

import uuid

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from captioner.captions.captions import caption_create
from captioner.captions.feedback import feedback_review, feedback_submit
from captioner.captions.text import captions_disagree
from captioner.exceptions import InvalidFeedback
from captioner.models import Caption, Feedback, Owner
from tests.conftest import FakeEngine, draw_jpeg

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
        ({"ideal_caption": "x" * 1501}, "ideal_caption", "has 1501 characters; at most 1500"),
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


# --- What corrects nothing ---


@pytest.mark.parametrize("said", ["A 64 by 48 photo.", "a  64 by 48 PHOTO", "“A 64 by 48 photo!”"])
def test_the_served_caption_said_again_is_approval(caption: Caption, said: str) -> None:
    assert caption.text == "a 64 by 48 photo"
    feedback, _ = feedback_submit(caption, ideal_caption=said)
    assert (feedback.rating, feedback.ideal_caption) == (10, "")
    feedback, _ = feedback_submit(caption, ideal_caption=said, rating=7)
    assert (feedback.rating, feedback.ideal_caption) == (7, "")


def test_a_word_more_is_a_correction(caption: Caption) -> None:
    feedback, _ = feedback_submit(caption, ideal_caption="a teal 64 by 48 photo")
    assert (feedback.rating, feedback.ideal_caption) == (None, "a teal 64 by 48 photo")


# --- Corrections of one photo that disagree ---


def correct(said: str, owner: Owner | None = None) -> Feedback:
    owner = owner or Owner(visitor=uuid.uuid4())
    caption = caption_create(draw_jpeg((40, 30)), owner=owner, source=Caption.Source.WEB)
    return feedback_submit(caption, ideal_caption=said)[0]


def approve(*rows: Feedback, reviewer: User) -> int:
    approved = Feedback.objects.filter(pk__in=[row.pk for row in rows])
    return feedback_review(approved, Feedback.Status.APPROVED, reviewer=reviewer)


def statuses(*rows: Feedback) -> list[str]:
    by_pk = dict(Feedback.objects.values_list("pk", "status"))
    return [by_pk[row.pk] for row in rows]


def test_corrections_that_disagree_go_back_to_review_once(fake_engine: FakeEngine, reviewer: User) -> None:
    dog, horse = correct("a brown dog runs"), correct("the horse of my uncle")
    assert approve(dog, reviewer=reviewer) == 1
    assert approve(horse, reviewer=reviewer) == 0
    assert statuses(dog, horse) == ["pending", "pending"]
    dog.refresh_from_db()
    assert (dog.disagrees_with, dog.reviewed_by) == (horse, None)
    assert approve(horse, reviewer=reviewer) == approve(dog, reviewer=reviewer) == 1
    assert statuses(dog, horse) == ["approved", "approved"], "who approved them has seen both"
    cat = correct("somebody's cat")
    assert approve(cat, reviewer=reviewer) == 0
    assert statuses(dog, horse, cat) == ["approved", "approved", "pending"]


def test_approved_together_they_go_back_together(fake_engine: FakeEngine, reviewer: User) -> None:
    rows = [correct("a brown dog runs"), correct("the horse of my uncle")]
    assert approve(*rows, reviewer=reviewer) == 0
    assert statuses(*rows) == ["pending", "pending"]


def test_who_corrects_oneself_or_agrees_is_left_alone(fake_engine: FakeEngine, reviewer: User) -> None:
    ada = Owner(visitor=uuid.uuid4())
    rows = [correct("a brown dog runs", ada), correct("horses", ada), correct("two dogs and horses")]
    assert approve(*rows, reviewer=reviewer) == 3


@pytest.mark.parametrize(
    ("one", "other", "disagree"),
    [
        ("Two dogs run on the grass.", "a dog on a lawn", False),
        ("a dog", "the horse is on the grass", True),
        ("一只狗在草地上跑", "草地上有一只棕色的狗", False),
        ("一只狗", "红色的船", True),
    ],
)
def test_captions_disagree_that_have_no_word_in_common(one: str, other: str, disagree: bool) -> None:
    assert captions_disagree(one, other) == disagree


# --- The caption is what its owner made of it ---


def test_the_correction_is_the_caption_and_the_log_keeps_what_the_model_said(caption: Caption) -> None:
    feedback_submit(caption, ideal_caption="a teal rectangle")
    caption = Caption.objects.with_details().get()
    assert (caption.final_text, caption.final_source) == ("a teal rectangle", "person")
    assert (caption.answer_text, caption.text) == ("a 64 by 48 photo", "a 64 by 48 photo")


@pytest.mark.parametrize("status", Feedback.Status)
def test_ones_own_words_stay_ones_own_whatever_a_reviewer_thinks(
    caption: Caption, reviewer: User, status: Feedback.Status
) -> None:
    feedback_submit(caption, ideal_caption="a teal rectangle")
    feedback_review(Feedback.objects.all(), status, reviewer=reviewer)
    assert Caption.objects.get().final_text == "a teal rectangle"


def test_a_rating_alone_leaves_the_caption_as_it_is(caption: Caption) -> None:
    feedback_submit(caption, rating=4)
    assert (Caption.objects.get().final_text, Caption.objects.get().final_source) == (caption.text, "model")


@pytest.mark.parametrize("own", ["A 64 by 48 photo.", "a 64-by-48 photo", "A 64 BY 48 PHOTO"])
def test_the_answer_in_ones_own_spelling_is_taken_away_and_teaches_nothing(
    caption: Caption, own: str
) -> None:
    feedback, _ = feedback_submit(caption, ideal_caption=own)
    assert (feedback.ideal_caption, feedback.rating) == ("", 10)
    assert Caption.objects.get().final_text == own
    feedback_submit(caption, ideal_caption=caption.text)
    assert Caption.objects.get().final_source == "model"


def test_saying_the_same_correction_again_keeps_it(caption: Caption) -> None:
    for _ in range(2):
        feedback_submit(Caption.objects.get(), ideal_caption="a teal rectangle")
    assert Feedback.objects.get().ideal_caption == "a teal rectangle"
