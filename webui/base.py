"""Functions that several pages share."""

from django.conf import settings
from django.contrib.auth.decorators import user_passes_test
from django.http import HttpRequest, HttpResponseRedirect

from captioner.http import rates
from captioner.http.owner import owner_of
from captioner.http.problems import Problem
from captioner.models import Caption, CaptionQuerySet

# How many captions the pages ask the model for: the one they show, and its alternatives.
CANDIDATES = 3

may_caption = user_passes_test(lambda user: settings.ALLOW_ANONYMOUS or user.is_authenticated)


class SeeOther(HttpResponseRedirect):
    """The answer to a form that was processed: look at the result with a GET."""

    status_code = 303


def own_captions(request: HttpRequest) -> CaptionQuerySet:
    return Caption.objects.owned_by(owner_of(request)).with_details()


def is_scripted(request: HttpRequest) -> bool:
    """Whether a script of ours asks, which wants the part of the page that changes and no more."""
    return "fetch" in request.headers.get("X-Requested-With", "")


def upload_refusal(request: HttpRequest) -> Problem | None:
    """Counts an upload of this person; returns what to answer where it is one too many."""
    wait = rates.retry_after(rates.caller_take(request, request.user.pk, api_key_id=None))
    if wait is None:
        return None
    told = f"You sent photos more often than allowed. Try again in {rates.seconds_in_words(wait)}."
    return Problem.retryable("throttled", 429, told, wait)
