"""Functions that several pages share."""

import uuid
from collections.abc import Sequence
from functools import cache

from django.conf import settings
from django.contrib.auth.decorators import user_passes_test
from django.db.models import prefetch_related_objects
from django.http import HttpRequest, HttpResponseRedirect

from captioner.captions.states import FeedbackState, feedback_states
from captioner.http import rates
from captioner.http.owner import owner_of
from captioner.http.problems import Problem
from captioner.models import Caption, CaptionQuerySet
from models_registry.versions import versions_numbered

# How many captions the pages ask the model for: the one they show, and its alternatives.
CANDIDATES = 3

may_caption = user_passes_test(lambda user: settings.ALLOW_ANONYMOUS or user.is_authenticated)


class SeeOther(HttpResponseRedirect):
    """The answer to a form that was processed: look at the result with a GET."""

    status_code = 303


def own_captions(request: HttpRequest) -> CaptionQuerySet:
    return Caption.objects.owned_by(owner_of(request)).with_details()


def outcomes(captions: Sequence[Caption]) -> dict[uuid.UUID, FeedbackState]:
    """What became of the feedback on these captions, by their ids: of all that is true of each what came last."""
    prefetch_related_objects(captions, "feedback__uses")
    numbered = cache(versions_numbered)
    said = (caption.feedback for caption in captions if hasattr(caption, "feedback"))
    return {feedback.caption_id: feedback_states(feedback, numbered)[-1] for feedback in said}


def is_scripted(request: HttpRequest) -> bool:
    """Whether a script of ours asks, which wants the part of the page that changes and no more."""
    return "fetch" in request.headers.get("X-Requested-With", "")


def version_name(version: str) -> str:
    """What people read of a version: its number, or its id where the registry has none of it."""
    number = versions_numbered().get(version) if version else None
    return f"Version {number}" if number else version


def upload_refusal(request: HttpRequest) -> Problem | None:
    """Counts an upload of this person; returns what to answer where it is one too many."""
    wait = rates.retry_after(rates.caller_take(request, request.user.pk, api_key_id=None))
    if wait is None:
        return None
    told = f"You sent photos more often than allowed. Try again in {rates.seconds_in_words(wait)}."
    return Problem.retryable("throttled", 429, told, wait)
