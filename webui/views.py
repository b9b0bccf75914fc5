"""The pages. All work without JavaScript, and every object is looked up among the person's own."""

import uuid
from collections.abc import Mapping, Sequence
from urllib.parse import urlencode

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import user_passes_test
from django.core.files.uploadedfile import UploadedFile
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_safe

from captioner.captions.captions import caption_delete, captions_create, parameters_from
from captioner.captions.feedback import feedback_submit
from captioner.exceptions import CaptionerError, ClientGone, InvalidFeedback, ModelUnavailable
from captioner.http import rates
from captioner.http.client import client_gone
from captioner.http.owner import owner_of
from captioner.http.problems import no_error_logged, problem_from
from captioner.inference.types import DecodingParameters
from captioner.intake.limits import MAX_BYTES
from captioner.models import Caption, CaptionQuerySet
from captioner.serving import runtime
from webui.doubt import percent_of, words_of
from webui.forms import FeedbackForm, SearchForm
from webui.paging import page_of

_LATEST_SHOWN = 4
# How many captions the page asks the model for: the one it shows large, and its alternatives.
_CANDIDATES = 3
_MODEL_RETRY_SECONDS = 5

may_caption = user_passes_test(lambda user: settings.ALLOW_ANONYMOUS or user.is_authenticated)


class SeeOther(HttpResponseRedirect):
    """The answer to a form that was processed: look at the result with a GET."""

    status_code = 303


# --- Upload -----------------------------------------------------------------------------------------------


@may_caption
@require_http_methods(["GET", "HEAD", "POST"])
def home(request: HttpRequest) -> HttpResponse:
    try:
        parameters = parameters_from(runtime.engine().default_parameters, num_captions=_CANDIDATES)
    except ModelUnavailable as error:
        return _model_unavailable(request, error)
    if request.method != "POST":
        return _home(request)
    uploads = request.FILES.getlist("image")
    if not uploads:
        return _home(request, ["Choose at least one photo first."], status=400)
    if len(uploads) > settings.UPLOAD_MAX_PHOTOS:
        problem = (
            f"You sent {len(uploads)} photos; at most {settings.UPLOAD_MAX_PHOTOS} are captioned at a time."
        )
        return _home(request, [problem], status=400)
    wait = rates.retry_after(rates.caller_take(request, request.user.pk, api_key_id=None))
    if wait is not None:
        problem = f"You sent photos more often than allowed. Try again in {rates.seconds_in_words(wait)}."
        return _home(request, [problem], status=429, headers={"Retry-After": str(wait)})
    return _upload(request, uploads, parameters)


def _upload(
    request: HttpRequest, uploads: "list[UploadedFile[bytes]]", parameters: DecodingParameters
) -> HttpResponse:
    try:
        outcomes = captions_create(
            # One byte more than allowed is enough to be refused as too large.
            (upload.read(MAX_BYTES + 1) for upload in uploads),
            owner=owner_of(request),
            source=Caption.Source.WEB,
            parameters=parameters,
            is_abandoned=lambda: client_gone(request),
        )
    except ClientGone:
        return HttpResponse(status=400)  # for the server's log: nobody is left to read it
    captions = [outcome for outcome in outcomes if isinstance(outcome, Caption)]
    failures = [
        (upload.name or "photo", outcome)
        for upload, outcome in zip(uploads, outcomes, strict=True)
        if isinstance(outcome, CaptionerError)
    ]
    if not captions:
        return _upload_failed(request, failures)
    for name, error in failures:
        messages.error(request, f"{name}: {error}")
    if len(captions) == 1:
        return SeeOther(reverse("caption", args=[captions[0].pk]))
    new = ",".join(str(caption.pk) for caption in captions)
    return SeeOther(f"{reverse('captions')}?{urlencode({'new': new}, safe=',')}")


def _upload_failed(request: HttpRequest, failures: list[tuple[str, CaptionerError]]) -> HttpResponse:
    """The form again, with what was wrong with each photo; the gravest reason makes the status."""
    for _, error in failures:
        if isinstance(error, ModelUnavailable):
            return _model_unavailable(request, error)
    problems = [problem for _, error in failures if (problem := problem_from(error))]
    gravest = max(problems, key=lambda problem: problem.status)
    told = [f"{name}: {error}" for name, error in failures]
    return _home(request, told, status=gravest.status, headers=gravest.headers)


def _home(
    request: HttpRequest,
    problems: Sequence[str] = (),
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> HttpResponse:
    context = {
        "problems": problems,
        "busy": status == 429,
        "latest": _own(request)[:_LATEST_SHOWN],
        "max_photos": settings.UPLOAD_MAX_PHOTOS,
        "max_megabytes": MAX_BYTES // 2**20,
    }
    response = render(request, "webui/home.html", context, status=status)
    for name, value in (headers or {}).items():
        response[name] = value
    return response


def _model_unavailable(request: HttpRequest, error: ModelUnavailable) -> HttpResponse:
    context = {"reason": str(error), "retry_after": _MODEL_RETRY_SECONDS}
    response = render(request, "webui/unavailable.html", context, status=503)
    response["Retry-After"] = str(_MODEL_RETRY_SECONDS)
    no_error_logged(response)
    return response


# --- One caption ------------------------------------------------------------------------------------------


@may_caption
@require_http_methods(["GET", "HEAD", "POST"])
def caption(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """The result, and the form that says what the person thinks of it."""
    shown = get_object_or_404(_own(request), pk=pk)
    if request.method != "POST":
        return _caption(request, shown, FeedbackForm(initial=_feedback_initial(request, shown)))
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
    context = {
        "caption": shown,
        "feedback": getattr(shown, "feedback", None),
        "words": words_of(shown.words),
        "confidence": None if shown.confidence is None else percent_of(shown.confidence),
        "form": form,
        # One of them, however many saves hastily followed each other.
        "saved": next((told for told in messages.get_messages(request) if "feedback" in told.tags), ""),
    }
    return render(request, "webui/caption.html", context, status=status)


def _feedback_initial(request: HttpRequest, shown: Caption) -> dict[str, object]:
    """What was said before; `?use=N` puts the caption of that rank in the place of the person's own."""
    feedback = getattr(shown, "feedback", None)
    initial = {"rating": feedback.rating, "ideal_caption": feedback.ideal_caption} if feedback else {}
    candidates = [shown.text, *(alternative["caption"] for alternative in shown.alternatives)]
    by_rank = {str(rank): candidate for rank, candidate in enumerate(candidates)}
    wanted = by_rank.get(request.GET.get("use", ""))
    if wanted is not None:
        initial["ideal_caption"] = wanted
    return initial


@may_caption
@require_http_methods(["GET", "HEAD", "POST"])
def delete(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Ask first, then delete."""
    shown = get_object_or_404(_own(request), pk=pk)
    if request.method != "POST":
        is_shared = _own(request).filter(photo=shown.photo).exclude(pk=pk).exists()
        return render(request, "webui/caption_delete.html", {"caption": shown, "is_shared": is_shared})
    caption_delete(shown)
    messages.success(request, "The caption was deleted.")
    return SeeOther(reverse("captions"))


# --- History ----------------------------------------------------------------------------------------------


@may_caption
@require_safe
def captions(request: HttpRequest) -> HttpResponse:
    """The person's own captions: all, those found by `?q=`, or those just made (`?new=id,id`)."""
    search = SearchForm(request.GET)
    query = search.cleaned_data["q"] if search.is_valid() else ""
    new = _ids(request.GET.get("new", ""))
    found = _own(request)
    if new:
        found = found.filter(pk__in=new)
    if query:
        found = found.search(query)
    page = page_of(found, newer=request.GET.get("newer", ""), older=request.GET.get("older", ""))
    if new:  # in the order in which they were chosen
        page.captions.sort(key=lambda caption: new.index(caption.pk))
    kept = {"q": query} if query else {}
    context = {
        "captions": page.captions,
        "newer_link": page.newer and f"?{urlencode(kept | {'newer': page.newer})}",
        "older_link": page.older and f"?{urlencode(kept | {'older': page.older})}",
        "query": query,
        "is_new": bool(new),
        "search": search,
    }
    return render(request, "webui/captions.html", context, status=200 if search.is_valid() else 400)


def _ids(text: str) -> list[uuid.UUID]:
    """The ids of `?new=`. Raises `Http404` where one is none."""
    try:
        return [uuid.UUID(part) for part in text.split(",") if part][: settings.UPLOAD_MAX_PHOTOS]
    except ValueError:
        raise Http404("This link to new captions is damaged.") from None


def _own(request: HttpRequest) -> CaptionQuerySet:
    return Caption.objects.owned_by(owner_of(request)).with_details()
