"""The worksheet: a row per photo, whose caption is edited in place and saved when it is left."""

import uuid
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_POST, require_safe

from captioner.captions.exports import alt_hints
from captioner.captions.feedback import caption_correct
from captioner.captions.states import captions_outcomes
from captioner.exceptions import InvalidFeedback
from captioner.models import IDEAL_CAPTION_MAX_LENGTH, UNSURE_BELOW, Caption
from webui.base import SeeOther, is_scripted, may_caption, own_captions
from webui.doubt import shown_words
from webui.forms import CaptionTextForm
from webui.history import captions_listed

ROWS = 100


@may_caption
@require_safe
def worksheet(request: HttpRequest) -> HttpResponse:
    """The captions that the history's filter finds, those of a job, or those just made."""
    listing = captions_listed(request)
    page = listing.page(request, ROWS)
    others = {name: value for name, value in listing.kept.items() if name != "only"}
    context = listing.context(page) | {
        "all_query": urlencode(others),
        "fresh_query": urlencode(others | {"only": "unseen"}),
        "rows": [_row(caption) for caption in page.rows],
        "outcomes": captions_outcomes(page.rows),
        "fresh": sum(caption.looked_at is None and not hasattr(caption, "feedback") for caption in page.rows),
        "max_length": IDEAL_CAPTION_MAX_LENGTH,
        "here": request.get_full_path(),
    }
    return render(request, "webui/worksheet.html", context, status=200 if listing.filter.is_valid() else 400)


@may_caption
@require_POST
def save(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Take what the row says for the caption, or its candidate of rank `use`. Scripts are answered with the row."""
    caption, form = get_object_or_404(own_captions(request), pk=pk), CaptionTextForm(request.POST)
    error = ""
    if form.is_valid():
        text, rank = form.cleaned_data["caption"], form.cleaned_data["use"]
        candidates = _candidates(caption)
        try:
            caption_correct(
                caption, candidates[rank] if rank is not None and rank < len(candidates) else text
            )
        except InvalidFeedback as refused:
            error = str(refused)
        except Caption.DoesNotExist:
            raise Http404("The caption was deleted meanwhile.") from None
    else:
        error = " ".join(str(told) for errors in form.errors.values() for told in errors)
    if not is_scripted(request) and not error:
        back = request.POST.get("next", "")
        is_ours = url_has_allowed_host_and_scheme(
            back, {request.get_host()}, require_https=request.is_secure()
        )
        messages.success(request, "Saved.")
        if is_ours and back == reverse("caption", args=[pk]):
            return SeeOther(back)
        return SeeOther(f"{back if is_ours else reverse('worksheet')}#row-{pk}")
    saved = get_object_or_404(own_captions(request), pk=pk)
    context = _row(saved) | {
        "outcomes": captions_outcomes([saved]),
        "error": error,
        "typed": request.POST.get("caption") if error else None,
        "told": "" if error else "Saved",
        "max_length": IDEAL_CAPTION_MAX_LENGTH,
        "here": request.POST.get("next", ""),
    }
    template = "webui/_sheet_row.html" if is_scripted(request) else "webui/row.html"
    return render(request, template, context, status=400 if error else 200)


def _candidates(caption: Caption) -> list[str]:
    """What the model and the memory have to offer besides what the caption is."""
    offered = [caption.answer_text, caption.text, *(str(each["caption"]) for each in caption.alternatives)]
    return [text for text in dict.fromkeys(offered) if text and text != caption.final_text]


def _row(caption: Caption) -> dict[str, Any]:
    words = shown_words(caption.words) if caption.final_source == "model" else []
    return {
        "caption": caption,
        "words": words,
        "doubted": [word for word in words if word.probability < UNSURE_BELOW],
        "candidates": _candidates(caption),
        "hints": alt_hints(caption.final_text),
        "is_fresh": caption.looked_at is None and not hasattr(caption, "feedback"),
    }
