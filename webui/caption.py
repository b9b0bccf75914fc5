"""The page of one caption, with its photo, how sure the model was, and the feedback form; and the one to delete it."""

import uuid
from contextlib import suppress
from typing import Any

from django.contrib import messages
from django.db import OperationalError
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST

from captioner.captions.captions import caption_delete
from captioner.captions.exports import alt_hints, img_tag
from captioner.captions.feedback import caption_look, feedback_ask_again, feedback_submit
from captioner.captions.states import feedback_states
from captioner.exceptions import CaptionerError, InvalidFeedback
from captioner.models import Caption
from webui.base import SeeOther, may_caption, own_captions, upload_refusal
from webui.doubt import percent_of, shown_words
from webui.forms import FeedbackForm


@may_caption
@require_http_methods(["GET", "HEAD", "POST"])
def caption(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """The result, and the form that says what the person thinks of it.

    `?use=N` proposes the caption of rank N, 0 for the one shown large, as the person's own; `?use=model` the model's.
    """
    shown = get_object_or_404(own_captions(request), pk=pk)
    feedback = getattr(shown, "feedback", None)
    if request.method != "POST":
        with suppress(OperationalError):  # where nothing can be written, it can still be read
            caption_look(shown)
        initial = {"rating": feedback.rating, "ideal_caption": feedback.own_text} if feedback else {}
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


def _caption(request: HttpRequest, shown: Caption, form: FeedbackForm, status: int = 200) -> HttpResponse:
    own = own_captions(request)
    context = {
        "caption": shown,
        "newer": own.newer_than(shown.created_at, shown.pk).reverse().first(),
        "older": own.older_than(shown.created_at, shown.pk).first(),
        "feedback": getattr(shown, "feedback", None),
        # The words and the confidence are the model's own.
        "words": shown_words(shown.words) if shown.final_source == "model" else [],
        "hints": [] if shown.is_decorative else alt_hints(shown.final_text),
        "img_tag": img_tag(shown),
        "confidence": None if shown.confidence is None else percent_of(shown.confidence),
        "remembered": _remembered(request, shown),
        "states": feedback_states(shown.feedback) if hasattr(shown, "feedback") else [],
        "form": form,
        # Once, however many saves hastily followed each other.
        "saved": next((told for told in messages.get_messages(request) if "feedback" in told.tags), ""),
    }
    return render(request, "webui/caption.html", context, status=status)


def _remembered(request: HttpRequest, shown: Caption) -> dict[str, Any] | None:
    """Since when the caption is remembered that was the answer, and of which caption, if the person may see that."""
    if shown.recalled is None or not shown.is_remembered:
        return None
    taught = own_captions(request).filter(pk=shown.recalled.caption_id).first()
    return {"since": shown.recalled.reviewed_at, "caption": taught}


@may_caption
@require_POST
def again(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Ask the version that serves now what it says of the photo."""
    shown = get_object_or_404(own_captions(request), pk=pk, feedback__isnull=False)
    try:
        if refusal := upload_refusal(request):
            messages.error(request, refusal.detail)
        else:
            feedback_ask_again(shown.feedback)
    except FileNotFoundError:
        messages.error(request, "The photo of this caption is lost.")
    except CaptionerError as error:
        messages.error(request, str(error))
    return SeeOther(f"{reverse('caption', args=[pk])}#feedback")


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
    """Ask first, then delete."""
    shown = get_object_or_404(own_captions(request), pk=pk)
    if request.method != "POST":
        is_shared = own_captions(request).filter(photo=shown.photo).exclude(pk=pk).exists()
        return render(request, "webui/caption_delete.html", {"caption": shown, "is_shared": is_shared})
    caption_delete(shown)
    messages.success(request, "The caption was deleted.")
    return SeeOther(reverse("captions"))
