"""What became of a piece of feedback, as its author and reviewers read it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache

from django.conf import settings
from django.db.models import prefetch_related_objects
from django.utils.formats import date_format
from django.utils.timezone import localtime

from captioner.models import Caption, Feedback, FeedbackUse
from models_registry.versions import versions_numbered

# Why approved feedback was left out, by the codes of `FeedbackUse.reason`.
_REASONS = {
    "duplicate": "the same was said before, or again later",
    "photo_cap": "enough was said of photos that look like this one",
    "author_cap": "one author's share of what a version learns from is limited",
    "photo_unreadable": "its photo cannot be read",
    "held_out_copy": "its photo is a copy of one that tests versions and never trains",
    "step_budget": "the steps of one training visit no more rows",
}


@dataclass(frozen=True, slots=True)
class FeedbackState:
    """One thing that is true of a piece of feedback now. `told` says it to people, `state` to programs."""

    state: str
    told: str
    version: str = ""
    reason: str = ""
    since: datetime | None = None


def feedback_states(
    feedback: Feedback, numbered: Callable[[], Mapping[str, int]] = versions_numbered
) -> list[FeedbackState]:
    """Returns what is true of `feedback` now. It reads `feedback.uses`, which lists of captions prefetch.

    `numbered` is asked for the versions' numbers where one is told; lists give one that remembers its answer.
    """
    return list(_states(feedback, numbered))


def captions_outcomes(captions: Sequence[Caption]) -> dict[uuid.UUID, FeedbackState]:
    """What became of the feedback on these captions, by their ids: of all that is true of each what came last."""
    prefetch_related_objects(captions, "feedback__uses")
    numbered = cache(versions_numbered)
    said = (caption.feedback for caption in captions if hasattr(caption, "feedback"))
    return {feedback.caption_id: feedback_states(feedback, numbered)[-1] for feedback in said}


def version_name(version: str) -> str:
    """What people read of a version: its number, or its id where the registry has none of it."""
    number = versions_numbered().get(version) if version else None
    return f"Version {number}" if number else version


def _states(feedback: Feedback, numbered: Callable[[], Mapping[str, int]]) -> Iterator[FeedbackState]:
    if feedback.status == Feedback.Status.PENDING:
        yield FeedbackState("waiting", "Waiting for review")
        return
    if feedback.status == Feedback.Status.REJECTED:
        why = f". {feedback.get_rejection_display()}" if feedback.rejection else ""
        told = f"Left out: a reviewer did not approve it{why}"
        yield FeedbackState("left_out", told, reason=feedback.rejection or "rejected")
        return
    if not feedback.ideal_caption:
        told = "Approved. Ratings order the review queue and compare versions; they teach none"
        yield FeedbackState("rated", told)
        return
    if settings.MEMORY_SCOPE != "off" and feedback.reviewed_at is not None:
        since = date_format(localtime(feedback.reviewed_at), "j F Y, H:i")
        yield FeedbackState("memory", f"In memory since {since}", since=feedback.reviewed_at)
    uses = list(feedback.uses.all())  # the latest first
    if not uses:
        yield FeedbackState("approved", "Approved: the next training reads it")
        return
    if uses[0].version_id is None:  # and what it did before stays true
        yield _unlearned(uses[0])
    for use in [use for use in uses if use.version_id][:1]:
        version = use.version_id or ""
        number = numbered()[version]
        why = _REASONS.get(use.reason, use.reason.replace("_", " "))
        told_of = {
            FeedbackUse.Role.TAUGHT: f"Learned in version {number}",
            FeedbackUse.Role.CHOSE: f"Chose how much version {number} keeps of what it learned, and did not teach it",
            FeedbackUse.Role.TESTS: f"Kept aside: it tests version {number} and never teaches one",
            FeedbackUse.Role.LEFT_OUT: f"Left out of version {number}: {why}",
        }
        yield FeedbackState(use.role, told_of[FeedbackUse.Role(use.role)], version, use.reason)


def _unlearned(use: FeedbackUse) -> FeedbackState:
    """What the last training, which learned nothing yet, made of a piece of feedback."""
    if use.role == FeedbackUse.Role.LEFT_OUT:
        why = _REASONS.get(use.reason, use.reason.replace("_", " "))
        return FeedbackState("left_out", f"Left out of the last training: {why}", reason=use.reason)
    if use.role == FeedbackUse.Role.TESTS:
        return FeedbackState("tests", "Kept to test versions, and never trains")
    if use.role == FeedbackUse.Role.CHOSE:
        told = "The last training kept it aside to see whether it had learned anything: nothing yet"
    else:
        told = "The last training learned nothing yet from what it read, this included; the next one reads it again"
    return FeedbackState("unlearned", told)
