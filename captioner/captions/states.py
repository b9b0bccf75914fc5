"""What became of a piece of feedback, as its author and reviewers read it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from django.conf import settings
from django.utils.formats import date_format
from django.utils.timezone import localtime

from captioner.models import Feedback, FeedbackUse

# Why approved feedback was left out, by the codes of `FeedbackUse.reason`.
_REASONS = {
    "duplicate": "the same was said before, or again later",
    "photo_cap": "enough was said of photos that look like this one",
    "author_cap": "one author's share of what a version learns from is limited",
    "photo_unreadable": "its photo cannot be read",
}


@dataclass(frozen=True, slots=True)
class FeedbackState:
    """One thing that is true of a piece of feedback now. `told` says it to people, `state` to programs."""

    state: str
    told: str
    version: str = ""
    reason: str = ""
    since: datetime | None = None


def feedback_states(feedback: Feedback) -> list[FeedbackState]:
    """Returns what is true of `feedback` now. It reads `feedback.uses`, which lists of captions prefetch."""
    return list(_states(feedback))


def _states(feedback: Feedback) -> Iterator[FeedbackState]:
    if feedback.status == Feedback.Status.PENDING:
        yield FeedbackState("waiting", "Waiting for review")
        return
    if feedback.status == Feedback.Status.REJECTED:
        yield FeedbackState("left_out", "Left out: a reviewer did not approve it", reason="rejected")
        return
    if not feedback.ideal_caption:
        told = "Approved. Ratings order the review queue and compare versions; they teach none"
        yield FeedbackState("rated", told)
        return
    if settings.MEMORY_SCOPE != "off" and feedback.reviewed_at is not None:
        since = date_format(localtime(feedback.reviewed_at), "j F Y, H:i")
        yield FeedbackState("memory", f"In memory since {since}", since=feedback.reviewed_at)
    use = next(iter(feedback.uses.all()), None)  # the latest
    if use is None:
        yield FeedbackState("approved", "Approved: the next training reads it")
        return
    version = use.version_id
    if use.role == FeedbackUse.Role.TAUGHT:
        yield FeedbackState("taught", f"Taught version {version}", version)
    elif use.role == FeedbackUse.Role.TESTS:
        yield FeedbackState("tests", f"Tests version {version} and never trains", version)
    else:
        why = _REASONS.get(use.reason, use.reason.replace("_", " "))
        yield FeedbackState("left_out", f"Left out of version {version}: {why}", version, use.reason)
