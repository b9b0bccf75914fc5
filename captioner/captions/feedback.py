"""What people think of captions, and what reviewers make of that."""

import math
from collections import defaultdict
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from captioner.captions.again import caption_write_again
from captioner.captions.text import caption_key, captions_disagree, text_clean
from captioner.exceptions import InvalidFeedback
from captioner.models import IDEAL_CAPTION_MAX_LENGTH, Caption, Feedback, Preference

RATINGS_COUNTED = 200
# A usual rater, of 1 to 10.
USUAL_COUNT, USUAL_MEAN, USUAL_VARIANCE = 5, 6.0, 6.0
BEST_RATING = 10
UNREVIEWED = {"status": Feedback.Status.PENDING, "reviewed_by": None, "reviewed_at": None, "rejection": ""}


def feedback_submit(
    caption: Caption, *, rating: int | None = None, ideal_caption: str = ""
) -> tuple[Feedback, bool]:
    """Record what the person thinks of `caption`; saying it again replaces what was said and asks for a new review.

    A caption that is the answer but for case, marks and spaces corrects nothing: it is kept as a rating, the best
    unless the person gave another, and as their `wording` of the answer.

    Returns the feedback, and whether it is the first.

    Raises `InvalidFeedback` when there is neither a rating nor a caption, or one of them is out of range, and
    `Caption.DoesNotExist` when the caption was deleted meanwhile.
    """
    ideal_caption = text_clean(ideal_caption)
    if rating is None and not ideal_caption:
        raise InvalidFeedback("Give a rating from 1 to 10, a better caption, or both.", field="rating")
    if rating is not None and not 1 <= rating <= 10:
        raise InvalidFeedback(f"The rating is a whole number from 1 to 10, not {rating}.", field="rating")
    if len(ideal_caption) > IDEAL_CAPTION_MAX_LENGTH:
        raise InvalidFeedback(
            f"The caption has {len(ideal_caption)} characters; at most {IDEAL_CAPTION_MAX_LENGTH} are allowed.",
            field="ideal_caption",
        )
    wording = ""
    if ideal_caption and caption_key(ideal_caption) == caption_key(caption.answer_text):
        wording = ideal_caption if ideal_caption != caption.answer_text else ""
        rating, ideal_caption = rating or BEST_RATING, ""
    said = {"rating": rating, "ideal_caption": ideal_caption, "wording": wording}
    review = {**UNREVIEWED, "disagrees_with": None}
    with transaction.atomic():
        # Locked, so that a deletion under way comes either before, and there is nothing to rate, or after.
        caption = Caption.objects.select_for_update().get(pk=caption.pk)
        # Locked, too: a copy that is being answered with what is replaced comes either before or after.
        earlier = Feedback.objects.select_for_update().filter(caption=caption).first()
        if earlier is not None and earlier.ideal_caption != ideal_caption:
            feedback_text_forget(earlier)
        fresh = {
            "priority": _priority(caption, rating),
            "now_says": "",
            "now_says_version": "",
            "proposed": None,
        }
        feedback, is_new = Feedback.objects.update_or_create(caption=caption, defaults=said | review | fresh)
        _pick_record(feedback, caption)
    return feedback, is_new


def feedback_text_forget(feedback: Feedback) -> None:
    """Before `feedback` says something else: nothing learned from that, and no caption was answered with it."""
    feedback.forget()
    feedback.uses.all().delete()
    feedback.recalled_by.update(recalled=None)


def caption_correct(caption: Caption, text: str) -> None:
    """Take `text` for the caption. Without any, or with that of the answer, the caption is what was answered again.

    A rating stays as it is. Whoever leaves a caption as it stands has looked at it, which is kept too.

    Raises `InvalidFeedback` where the text is too long, `Caption.DoesNotExist` when the caption was deleted meanwhile.
    """
    text = text_clean(text)
    with transaction.atomic():
        Caption.objects.select_for_update().get(pk=caption.pk)
        caption_look(caption)
        earlier = Feedback.objects.select_for_update().filter(caption=caption).first()
        own = earlier.own_text if earlier else ""
        # That of a wording came with it, unless its owner said so.
        rating = (
            earlier.rating if earlier and not (earlier.wording and earlier.rating == BEST_RATING) else None
        )
        if text and text not in {own, caption.answer_text}:
            feedback_submit(caption, rating=rating, ideal_caption=text)
        elif earlier and own and text != own:
            if rating is None:
                earlier.delete()
            else:
                feedback_submit(caption, rating=rating)


def caption_look(caption: Caption) -> None:
    """Keep that its owner went through it, if that is not known yet."""
    Caption.objects.filter(pk=caption.pk, looked_at=None).update(looked_at=timezone.now())


def _priority(caption: Caption, rating: int | None) -> float:
    """How far, in standard deviations, a rating is below what this person usually gives; 0 without one.

    Of their latest `RATINGS_COUNTED` ratings, to which a few of a usual rater are added: whoever has rated twice has
    no mean of their own yet. Ratings teach no version; this orders the review queue.
    """
    if rating is None:
        return 0.0
    own = Caption.objects.owned_by(caption.owner).filter(end_user=caption.end_user)
    theirs = Feedback.objects.filter(caption__in=own)
    earlier = theirs.filter(rating__isnull=False).exclude(caption=caption).order_by("-pk")
    given = [int(each or 0) for each in earlier.values_list("rating", flat=True)[:RATINGS_COUNTED]]
    count = len(given) + USUAL_COUNT
    mean = (sum(given) + USUAL_COUNT * USUAL_MEAN) / count
    variance = (sum((each - mean) ** 2 for each in given) + USUAL_COUNT * USUAL_VARIANCE) / count
    return round((mean - rating) / math.sqrt(variance), 3)


def _pick_record(feedback: Feedback, caption: Caption) -> None:
    """Keep that the person took one of the alternatives, as a preference among what the model itself said."""
    Preference.objects.filter(feedback=feedback).delete()
    if caption.origin == Caption.Origin.MEMORY:
        return  # it was preferred to what a person had written, whatever the model's own caption was
    ideal = feedback.ideal_caption.casefold()
    others = (str(alternative["caption"]) for alternative in caption.alternatives)
    picked = next((other for other in others if other.casefold() == ideal), None)
    if picked is not None and picked.casefold() != caption.text.casefold():
        Preference.objects.create(
            kind=Preference.Kind.PICK,
            photo_id=caption.photo_id,
            feedback=feedback,
            voter=caption.user,
            preferred=picked,
            other=caption.text,
            preferred_version=caption.model_version,
            other_version=caption.model_version,
        )


def feedback_ask_again(feedback: Feedback) -> None:
    """Keep what the version that serves now says of the photo, beside what was said of it then.

    Raises what `caption_write_again` does.
    """
    feedback.now_says, feedback.now_says_version = caption_write_again(feedback.caption)
    # Said anew meanwhile, it is other feedback.
    Feedback.objects.filter(pk=feedback.pk, updated_at=feedback.updated_at).update(
        now_says=feedback.now_says, now_says_version=feedback.now_says_version
    )


def caption_pick(caption: Caption, now_says: str, version: str, *, prefers_now: bool) -> None:
    """Keep which caption its owner prefers: the one there is, or what `version` says now, which then is the caption.

    Between two that versions wrote by themselves that is a preference. Raises `Caption.DoesNotExist` when the caption
    was deleted meanwhile.
    """
    then, now = (caption.text, caption.model_version), (now_says, version)
    is_models = caption.final_source == Caption.Origin.MODEL
    with transaction.atomic():
        caption_correct(caption, now_says if prefers_now else caption.own_text)
        if not is_models or then[0] == now[0]:
            return
        (preferred, preferred_version), (other, other_version) = (now, then) if prefers_now else (then, now)
        said: dict[str, Any] = {
            "preferred": preferred,
            "other": other,
            "preferred_version": preferred_version,
            "other_version": other_version,
        }
        pick: dict[str, Any] = {
            "kind": Preference.Kind.PICK,
            "photo_id": caption.photo_id,
            "voter": caption.user,
        }
        feedback = Feedback.objects.filter(caption=caption).first() if prefers_now else None
        if feedback is not None:
            Preference.objects.update_or_create(feedback=feedback, defaults=said | pick)
        else:
            Preference.objects.get_or_create(**pick, **said, feedback=None)


def feedback_review(
    feedback: QuerySet[Feedback], status: Feedback.Status, *, reviewer: User, rejection: str = ""
) -> int:
    """Approve or reject every row of `feedback`, recording who, when and why not; return how many changed for good.

    An approved correction that says something else than one that somebody else wrote of the same photo goes back to
    review together with that one, once: who approves it then has seen both.
    """
    reviewed_at = timezone.now()  # one moment for all: that is how they are taken back together
    with transaction.atomic():
        changed = list(feedback.exclude(status=status).values_list("pk", flat=True))
        returned = 0
        for start in range(0, len(changed), 1000):
            rows = Feedback.objects.filter(pk__in=changed[start : start + 1000])
            rows.update(status=status, reviewed_by=reviewer, reviewed_at=reviewed_at, rejection=rejection)
            if status == Feedback.Status.APPROVED:
                returned += _disagreements_return(rows)
    return len(changed) - returned


def _disagreements_return(approved: QuerySet[Feedback]) -> int:
    """Send back what disagrees, of `approved` and with it; return how many rows of `approved` that were."""
    corrections = Feedback.objects.filter(status=Feedback.Status.APPROVED).exclude(ideal_caption="")
    fresh = approved.filter(disagrees_with=None).exclude(ideal_caption="")
    by_photo: dict[int, list[Feedback]] = defaultdict(list)
    photos = fresh.values("caption__photo")
    for row in corrections.filter(caption__photo__in=photos).select_related("caption").order_by("pk"):
        by_photo[row.caption.photo_id].append(row)
    disagreeing: dict[int, int] = {}
    for row in list(fresh.select_related("caption")):
        for other in by_photo[row.caption.photo_id]:
            if _author(other) != _author(row) and captions_disagree(row.ideal_caption, other.ideal_caption):
                disagreeing[row.pk] = other.pk
                if other.disagrees_with_id is None:  # else a reviewer has approved it beside another already
                    disagreeing.setdefault(other.pk, row.pk)
                break
    for pk, other_pk in disagreeing.items():
        Feedback.objects.filter(pk=pk).update(**UNREVIEWED, disagrees_with=other_pk)
    return approved.filter(pk__in=disagreeing).count()


def _author(feedback: Feedback) -> tuple[object, ...]:
    caption = feedback.caption
    return caption.user_id, caption.api_key_id, caption.end_user, caption.visitor
