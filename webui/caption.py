"""The page of one caption, with its photo, how sure the model was, and the feedback form; and the one to delete it."""

import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar
from urllib.parse import urlencode

from django.contrib import messages
from django.core import signing
from django.db import OperationalError
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST

from captioner.captions.again import caption_next_words, caption_write_again
from captioner.captions.captions import DISCARDED_FOR, captions_discard
from captioner.captions.exports import alt_hints, img_tag
from captioner.captions.feedback import caption_look, caption_pick, feedback_ask_again, feedback_submit
from captioner.captions.states import feedback_states, version_name
from captioner.exceptions import CaptionerError, InvalidFeedback
from captioner.models import IDEAL_CAPTION_MAX_LENGTH, Caption
from webui.base import SeeOther, is_scripted, may_caption, own_captions, upload_refusal
from webui.doubt import percent_of, shown_words
from webui.forms import FeedbackForm, PlaceForm

Answer = TypeVar("Answer")

_SALT = "written again {}"  # of the caption with this id
_PICK_WITHIN = timedelta(days=1)


@may_caption
@require_http_methods(["GET", "HEAD", "POST"])
def caption(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """The result, and the form that says what the person thinks of it.

    `?use=N` proposes the caption of rank N, 0 for the one shown large, as the person's own; `?use=model` the model's.
    """
    shown = get_object_or_404(own_captions(request), pk=pk)
    if request.method != "POST":
        with suppress(OperationalError):  # where nothing can be written, it can still be read
            caption_look(shown)
        initial = _said(shown)
        candidates = [shown.final_text, *(alternative["caption"] for alternative in shown.alternatives)]
        by_rank = {str(rank): candidate for rank, candidate in enumerate(candidates)}
        by_rank["model"] = shown.text
        if (proposed := by_rank.get(request.GET.get("use", ""))) is not None:
            initial["ideal_caption"] = proposed
        return _caption(request, shown, FeedbackForm(initial=initial))
    form = FeedbackForm(request.POST)
    if form.is_valid():
        try:
            feedback_submit(shown, **form.cleaned_data)
        except InvalidFeedback as error:
            form.add_error(error.field, str(error))
        except Caption.DoesNotExist:
            raise Http404("The caption was deleted meanwhile.") from None
        else:
            messages.success(request, "Saved. Thank you!", extra_tags="feedback")
            return SeeOther(f"{reverse('caption', args=[pk])}#feedback")
    return _caption(request, shown, form, status=400)


def _said(shown: Caption) -> dict[str, Any]:
    feedback = getattr(shown, "feedback", None)
    return {"rating": feedback.rating, "ideal_caption": feedback.own_text} if feedback else {}


def _caption(
    request: HttpRequest, shown: Caption, form: FeedbackForm, status: int = 200, **more: Any
) -> HttpResponse:
    own, feedback = own_captions(request), getattr(shown, "feedback", None)
    # The words and the confidence are the model's own.
    words = shown_words(shown.words) if shown.final_source == "model" else []
    context = {
        "caption": shown,
        "newer": own.newer_than(shown.created_at, shown.pk).reverse().first(),
        "older": own.older_than(shown.created_at, shown.pk).first(),
        "feedback": feedback,
        "words": words,
        "doubted": [(place, word) for place, word in enumerate(words) if word.step],
        "replaced": None,
        "then_name": version_name(shown.model_version),
        "now_name": version_name(feedback.now_says_version if feedback else ""),
        "hints": [] if shown.is_decorative else alt_hints(shown.final_text),
        "img_tag": img_tag(shown),
        "confidence": None if shown.confidence is None else percent_of(shown.confidence),
        "remembered": _remembered(request, shown),
        "states": feedback_states(feedback) if feedback else [],
        "form": form,
        "max_length": IDEAL_CAPTION_MAX_LENGTH,
        # Once, however many saves hastily followed each other.
        "saved": next((told for told in messages.get_messages(request) if "feedback" in told.tags), ""),
    } | more
    return render(request, "webui/caption.html", context, status=status)


def _remembered(request: HttpRequest, shown: Caption) -> dict[str, Any] | None:
    """Since when the caption is remembered that was the answer, and of which caption, if the person may see that."""
    if shown.recalled is None or not shown.is_remembered:
        return None
    taught = own_captions(request).filter(pk=shown.recalled.caption_id).first()
    return {"since": shown.recalled.reviewed_at, "caption": taught}


@may_caption
@require_POST
def next_words(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """The model's other words for one that it doubts (`word`, its place), each with the rest that follows from it.

    Scripts are answered with these alone.
    """
    shown, form = get_object_or_404(own_captions(request), pk=pk), PlaceForm(request.POST)
    if not form.is_valid() or form.cleaned_data["word"] >= len(shown.words):
        raise Http404("The caption has no such word.")
    place = form.cleaned_data["word"]
    choices, refusal = _asked(request, lambda: caption_next_words(shown, place))
    context = {
        "caption": shown,
        "replaced": shown.words[place]["text"],
        "choices": choices,
        "choices_error": refusal,
    }
    status = 503 if refusal else 200
    if is_scripted(request):
        return render(request, "webui/_next_words.html", context, status=status)
    return _caption(request, shown, FeedbackForm(initial=_said(shown)), status, **context)


@may_caption
@require_POST
def again(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Ask the version that serves now what it says of the photo, and show that beside what was said."""
    shown = get_object_or_404(own_captions(request), pk=pk)
    feedback = getattr(shown, "feedback", None)

    def write() -> tuple[str, str]:
        if feedback is None:
            return caption_write_again(shown)
        feedback_ask_again(feedback)
        return feedback.now_says, feedback.now_says_version

    said, refusal = _asked(request, write)
    if said is None:
        messages.error(request, refusal)
        return SeeOther(reverse("caption", args=[pk]))
    text, version = said
    signed = signing.dumps([text, version], salt=_SALT.format(pk))
    written = {"text": text, "name": version_name(version), "signed": signed}
    return _caption(request, shown, FeedbackForm(initial=_said(shown)), again=written)


@may_caption
@require_POST
def pick(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Keep which of the two that `again` showed the person prefers."""
    shown = get_object_or_404(own_captions(request), pk=pk)
    try:
        said = signing.loads(request.POST.get("said", ""), salt=_SALT.format(pk), max_age=_PICK_WITHIN)
    except signing.BadSignature:
        messages.error(request, "That was too long ago. Have it written again.")
        return SeeOther(reverse("caption", args=[pk]))
    try:
        caption_pick(shown, *said, prefers_now=request.POST.get("take") == "now")
    except Caption.DoesNotExist:
        raise Http404("The caption was deleted meanwhile.") from None
    messages.success(request, "Saved. Thank you!")
    return SeeOther(reverse("caption", args=[pk]))


def _asked(request: HttpRequest, ask: Callable[[], Answer]) -> tuple[Answer | None, str]:
    """What the model answers, or why it does not; it counts as an upload."""
    try:
        if refusal := upload_refusal(request):
            return None, str(refusal.detail)
        return ask(), ""
    except FileNotFoundError:
        return None, "The photo of this caption is lost."
    except CaptionerError as error:
        return None, str(error)


@may_caption
@require_POST
def decorative(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Say that the photo tells nothing on the page it is for, or that it does."""
    shown = get_object_or_404(own_captions(request), pk=pk)
    shown.is_decorative = request.POST.get("decorative") == "yes"
    shown.save(update_fields=["is_decorative"])
    return SeeOther(reverse("caption", args=[pk]))


@may_caption
@require_http_methods(["GET", "HEAD", "POST"])
def delete(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Ask first, then delete; for some minutes it can be taken back."""
    shown = get_object_or_404(own_captions(request), pk=pk)
    if request.method != "POST":
        is_shared = own_captions(request).filter(photo=shown.photo).exclude(pk=pk).exists()
        minutes = DISCARDED_FOR.seconds // 60
        context = {"caption": shown, "is_shared": is_shared, "minutes": minutes}
        return render(request, "webui/caption_delete.html", context)
    moment = captions_discard(own_captions(request).filter(pk=pk))
    if moment is None:
        raise Http404("The caption was deleted meanwhile.")
    return SeeOther(f"{reverse('captions')}?{urlencode({'deleted': moment.isoformat()})}")
