"""A reviewer's decisions: on one piece of feedback or many, with the log of who decided what, and the way back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import AnonymousUser, User
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from captioner.captions.feedback import UNREVIEWED, feedback_review, feedback_text_forget
from captioner.captions.text import text_clean
from captioner.exceptions import InvalidFeedback
from captioner.models import IDEAL_CAPTION_MAX_LENGTH, Feedback
from models_registry.models import ModelVersion

UNDO_WITHIN = timedelta(hours=24)
_LOG_CHUNK = 1000
_Status = Feedback.Status


@dataclass(frozen=True, slots=True)
class Decided:
    """What came of a decision on one or many rows."""

    changed: int = 0
    returned: int = 0  # approved, and sent back: somebody else wrote something else of the same photo


def may_review(user: User | AnonymousUser) -> bool:
    """Whether this person reviews feedback; whoever may change feedback may do that as well."""
    return user.has_perm("captioner.review_feedback") or user.has_perm("captioner.change_feedback")


def feedback_decide(
    rows: QuerySet[Feedback], status: Feedback.Status, *, reviewer: User, rejection: str = ""
) -> Decided:
    """Approve or reject all of `rows` that are not so already; the log names each by its number."""
    with transaction.atomic():
        decided = list(rows.select_for_update(of=("self",)).exclude(status=status).select_related(None))
        told = f"{status.label}: {rejection}." if rejection else f"{status.label}."
        changed = feedback_review(rows, status, reviewer=reviewer, rejection=rejection)
        if decided:
            LogEntry.objects.log_actions(reviewer.pk, decided, CHANGE, told)
    return Decided(changed, len(decided) - changed)


def feedback_edit(feedback: Feedback, text: str, *, reviewer: User) -> Decided:
    """Approve `feedback` with the reviewer's wording; what its author wrote is kept beside it.

    What changed since `feedback` was read is left alone. Raises `InvalidFeedback` for no text or too much of it.
    """
    text = text_clean(text)
    if not 0 < len(text) <= IDEAL_CAPTION_MAX_LENGTH:
        raise InvalidFeedback(
            f"A caption has 1 to {IDEAL_CAPTION_MAX_LENGTH} characters.", field="ideal_caption"
        )
    with transaction.atomic():
        same = Feedback.objects.filter(updated_at=feedback.updated_at, status=feedback.status)
        row = same.select_for_update().filter(pk=feedback.pk).first()
        if row is None:
            return Decided()
        if row.ideal_caption != text:
            feedback_text_forget(row)
            changes = {
                "ideal_caption": text,
                "proposed": row.ideal_caption if row.proposed is None else row.proposed,
            }
            # What is approved anew is a decision of its own, also where it was approved before.
            Feedback.objects.filter(pk=row.pk).update(**changes, **UNREVIEWED)
            LogEntry.objects.log_actions(reviewer.pk, [row], CHANGE, "Edited.")
        return feedback_decide(Feedback.objects.filter(pk=row.pk), _Status.APPROVED, reviewer=reviewer)


def decision_undo(reviewer: User) -> list[int]:
    """Put what `reviewer` decided last back to review, as its author wrote it; returns the numbers of the rows.

    Asked again it goes back one decision more, through the last day. What other people decided stays.
    """
    own = Feedback.objects.filter(reviewed_by=reviewer, reviewed_at__gt=timezone.now() - UNDO_WITHIN)
    with transaction.atomic():
        last = own.order_by("-reviewed_at").values_list("reviewed_at", flat=True).first()
        if last is None:
            return []
        rows = list(own.filter(reviewed_at=last).select_for_update())
        for edited in (row for row in rows if row.proposed is not None):
            feedback_text_forget(edited)
            Feedback.objects.filter(pk=edited.pk).update(ideal_caption=edited.proposed, proposed=None)
        numbers = [row.pk for row in rows]
        for start in range(0, len(numbers), _LOG_CHUNK):
            Feedback.objects.filter(pk__in=numbers[start : start + _LOG_CHUNK]).update(**UNREVIEWED)
        LogEntry.objects.log_actions(reviewer.pk, rows, CHANGE, "Taken back.")
    return numbers


def decisions_today(reviewer: User) -> int:
    """How many pieces of feedback `reviewer` decided on since midnight, those taken back not counted."""
    midnight = timezone.localtime().replace(hour=0, minute=0, second=0, microsecond=0)
    return Feedback.objects.filter(reviewed_by=reviewer, reviewed_at__gte=midnight).count()


def versions_answered() -> list[str]:
    """The versions that feedback may be about, the newest first."""
    return list(ModelVersion.objects.values_list("pk", flat=True))
