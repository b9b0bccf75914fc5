"""What people think of captions, and what reviewers make of that."""

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from captioner.exceptions import (
    InvalidFeedback,
)
from captioner.models import IDEAL_CAPTION_MAX_LENGTH, Caption, Feedback


def feedback_submit(
    caption: Caption, *, rating: int | None = None, ideal_caption: str = ""
) -> tuple[Feedback, bool]:
    """Record what the person thinks of `caption`; saying it again replaces what was said and asks for a new review.

    Returns the feedback, and whether it is the first.

    Raises `InvalidFeedback` when there is neither a rating nor a caption, or one of them is out of range, and
    `Caption.DoesNotExist` when the caption was deleted meanwhile.
    """
    ideal_caption = " ".join(ideal_caption.split())
    if rating is None and not ideal_caption:
        raise InvalidFeedback("Give a rating from 1 to 10, a better caption, or both.", field="rating")
    if rating is not None and not 1 <= rating <= 10:
        raise InvalidFeedback(f"The rating is a whole number from 1 to 10, not {rating}.", field="rating")
    if len(ideal_caption) > IDEAL_CAPTION_MAX_LENGTH:
        raise InvalidFeedback(
            f"The caption has {len(ideal_caption)} characters; at most {IDEAL_CAPTION_MAX_LENGTH} are allowed.",
            field="ideal_caption",
        )
    said = {"rating": rating, "ideal_caption": ideal_caption}
    review = {"status": Feedback.Status.PENDING, "reviewed_by": None, "reviewed_at": None}
    with transaction.atomic():
        # Locked, so that a deletion under way comes either before, and there is nothing to rate, or after.
        caption = Caption.objects.select_for_update().get(pk=caption.pk)
        return Feedback.objects.update_or_create(caption=caption, defaults=said | review)


def feedback_review(feedback: QuerySet[Feedback], status: Feedback.Status, *, reviewer: User) -> int:
    """Approve or reject every row of `feedback`, recording who and when; return how many rows changed."""
    return feedback.exclude(status=status).update(
        status=status, reviewed_by=reviewer, reviewed_at=timezone.now()
    )
