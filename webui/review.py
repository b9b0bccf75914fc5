"""Review: feedback one piece after another, by keys or buttons, or many at once; and the log of who decided what."""

from typing import Any, cast
from urllib.parse import urlencode

from django import forms
from django.contrib import messages
from django.contrib.admin.models import LogEntry
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied
from django.db.models import F, Q
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from captioner.captions.photos import photo_open
from captioner.exceptions import InvalidFeedback
from captioner.models import IDEAL_CAPTION_MAX_LENGTH, Feedback, FeedbackQuerySet, Photo
from captioner.review import decisions
from captioner.review.word_diff import word_diff
from webui.base import SeeOther

AHEAD = 24  # items sent with a page: the one shown, and those that are there before they are needed
LISTED = 50
_RATINGS = {"low": (1, 3), "middle": (4, 6), "high": (7, 10)}
_REASONS = [each for each in Feedback.Rejection if each != Feedback.Rejection.DUPLICATE]
_ORDERS = {
    "": ("-priority", "-updated_at", "-pk"),  # the index of the queue
    "unsure": (F("caption__confidence").asc(nulls_last=True), "-pk"),
    "disagreement": (F("disagrees_with").desc(nulls_last=True), "-priority", "-pk"),
    "newest": ("-updated_at", "-pk"),
}


def may_review(view: Any) -> Any:
    """For reviewers only: others are asked to sign in, or told that they may not."""

    @login_required
    @never_cache
    def checked(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if not decisions.may_review(request.user):
            raise PermissionDenied
        return cast(HttpResponse, view(request, *args, **kwargs))

    return checked


class FilterForm(forms.Form):
    """Which feedback, and in which order. It goes along in every link and answer, so that it stays as it was set."""

    status = forms.ChoiceField(
        required=False,
        choices=[("", "Waiting"), ("approved", "Approved"), ("rejected", "Rejected"), ("all", "All")],
    )
    said = forms.ChoiceField(
        required=False,
        label="What was said",
        choices=[("", "Anything"), ("correction", "A caption"), ("rating", "A rating only")],
    )
    rating = forms.ChoiceField(
        required=False,
        choices=[
            ("", "Any or none"),
            *((name, f"{low} to {high}") for name, (low, high) in _RATINGS.items()),
            ("none", "None given"),
        ],
    )
    version = forms.ChoiceField(required=False, label="Captioned by")
    order = forms.ChoiceField(
        required=False,
        label="First",
        choices=[
            ("", "What pleased people least"),
            ("unsure", "What the model was least sure of"),
            ("disagreement", "Where people disagree"),
            ("newest", "The newest"),
        ],
    )
    q = forms.CharField(required=False, label="With the words", max_length=200)
    id = forms.IntegerField(required=False, min_value=1, max_value=2**62, widget=forms.HiddenInput)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = cast(forms.ChoiceField, self.fields["version"])
        field.choices = [("", "Any version"), *((each, each) for each in decisions.versions_answered())]

    @property
    def kept(self) -> dict[str, str]:
        """What was set, for links."""
        return {name: str(value) for name, value in self.cleaned_data.items() if value not in ("", None)}

    def found(self) -> FeedbackQuerySet:
        """The feedback in its order."""
        wish, rows = self.cleaned_data, Feedback.objects.all()
        if wish["id"]:
            return rows.filter(pk=wish["id"])
        if wish["status"] != "all":
            rows = rows.filter(status=wish["status"] or Feedback.Status.PENDING)
        if wish["said"]:
            is_rating = Q(ideal_caption="")
            rows = rows.filter(is_rating if wish["said"] == "rating" else ~is_rating)
        if wish["rating"]:
            given = (
                {"rating__range": _RATINGS[wish["rating"]]}
                if wish["rating"] in _RATINGS
                else {"rating": None}
            )
            rows = rows.filter(**given)
        if wish["version"]:
            rows = rows.filter(caption__model_version=wish["version"])
        if wish["q"]:
            rows = rows.filter(Q(ideal_caption__icontains=wish["q"]) | Q(caption__text__icontains=wish["q"]))
        return rows.order_by(*_ORDERS[wish["order"]])


def _filter_of(request: HttpRequest) -> FilterForm:
    form = FilterForm(request.GET)
    if not form.is_valid():
        raise Http404("There is no such filter.")
    return form


@may_review
@require_safe
def page(request: HttpRequest) -> HttpResponse:
    """The item that is to be decided on, and those after it; `?skip=` passes over so many, `?view=list` shows many."""
    form, skip = _filter_of(request), _number(request.GET.get("skip", ""))
    is_list = request.GET.get("view") == "list"
    found, seen = form.found(), timezone.now()  # before the rows are read: what is newer was not seen
    most = LISTED if is_list else AHEAD
    detailed = found.select_related(
        "caption__photo",
        "caption__recalled",
        "caption__user",
        "caption__api_key",
        "disagrees_with",
        "reviewed_by",
    )
    rows = list(detailed[skip : skip + most])
    left = found.count()
    if not rows and skip and left:
        return SeeOther(_address(form, skip=max(0, left - most) if is_list else left - 1, view=is_list))
    context = {
        "form": form,
        "is_filtered": set(form.kept) - {"order"},
        "query": urlencode(form.kept),
        "items": [_item(row) for row in rows],
        "left": left,
        "done": decisions.decisions_today(cast(User, request.user)),
        "skip": skip,
        "before_link": _address(form, skip=max(0, skip - (most if is_list else 1)), view=is_list)
        if skip
        else "",
        "after_link": _address(form, skip=skip + (most if is_list else 1), view=is_list)
        if left > skip + (most if is_list else 1)
        else "",
        "seen": seen,
        "leaves": not form.cleaned_data["id"] and form.cleaned_data["status"] == "",
        "reasons": _REASONS,
        "most": IDEAL_CAPTION_MAX_LENGTH,
    }
    return render(request, "webui/review_list.html" if is_list else "webui/review.html", context)


def _item(row: Feedback) -> dict[str, Any]:
    """A piece of feedback as the pages show it."""
    diff = word_diff(row.caption.text, row.ideal_caption) if row.ideal_caption else ()
    return {
        "row": row,
        "caption": row.caption,
        "diff": [({"same": "span", "removed": "del", "added": "ins"}[kind], words) for kind, words in diff],
        "confidence": None if row.caption.confidence is None else round(100 * row.caption.confidence),
        "author": _author(row),
    }


def _author(row: Feedback) -> str:
    caption = row.caption
    if caption.user is None:
        return f"visitor {str(caption.visitor)[:8]}"
    return caption.end_user or caption.user.get_username()


def _address(form: FilterForm, *, skip: int = 0, view: bool = False) -> str:
    query = form.kept | ({"skip": str(skip)} if skip else {}) | ({"view": "list"} if view else {})
    return f"{reverse('review')}?{urlencode(query)}" if query else reverse("review")


@may_review
@require_POST
def decide(request: HttpRequest, pk: int) -> HttpResponse:
    """Decide on one item as it was seen; what changed meanwhile, or somebody else decided on, is shown again."""
    form, row = _filter_of(request), get_object_or_404(Feedback, pk=pk)
    reviewer, action = cast(User, request.user), request.POST.get("action", "")
    is_script = request.headers.get("Accept", "").startswith("application/json")
    seen = _moment(request.POST.get("seen", ""))
    try:
        if (row.updated_at, row.status) != (seen, request.POST.get("was", "")):
            status, told = 409, f"Feedback {pk} changed while you looked at it; please look again."
        else:
            status, told = 200, _decide(row, action, request.POST, reviewer)
    except InvalidFeedback as error:
        status, told = 400, str(error)
    if is_script:
        return JsonResponse({"told": told}, status=status)
    messages.add_message(request, messages.SUCCESS if status == 200 else messages.ERROR, told)
    return SeeOther(_address(form, skip=_number(request.GET.get("skip", ""))))


def _decide(row: Feedback, action: str, sent: Any, reviewer: User) -> str:
    """Do what the button says and tell it. Raises `InvalidFeedback`, and `Http404` for no button of ours."""
    same = Feedback.objects.filter(pk=row.pk, updated_at=row.updated_at, status=row.status)
    if action == "edit":
        done = decisions.feedback_edit(row, sent.get("text", ""), reviewer=reviewer)
    elif action == "approve":
        done = decisions.feedback_decide(same, Feedback.Status.APPROVED, reviewer=reviewer)
    elif action in {"reject", "duplicate"}:
        reason = Feedback.Rejection.DUPLICATE if action == "duplicate" else sent.get("reason", "")
        if reason not in Feedback.Rejection.values:
            raise InvalidFeedback("Say why it is rejected.", field="reason")
        done = decisions.feedback_decide(same, Feedback.Status.REJECTED, reviewer=reviewer, rejection=reason)
    else:
        raise Http404("Feedback is approved, edited, rejected or a duplicate.")
    if done.returned:
        return f"Feedback {row.pk} goes back to review beside what somebody else wrote of the same photo."
    verb = {"approve": "approved", "edit": "approved as edited", "reject": "rejected"}.get(
        action, "a duplicate"
    )
    return f"Feedback {row.pk}: {verb}." if done.changed else f"Feedback {row.pk} was so already."


@may_review
@require_POST
def undo(request: HttpRequest) -> HttpResponse:
    """Take the reviewer's last decision back, of however many rows it was."""
    form = _filter_of(request)
    numbers = decisions.decision_undo(cast(User, request.user))
    noun = f"Feedback {numbers[0]} is" if len(numbers) == 1 else f"{len(numbers)} are"
    told = (
        f"{noun} back in review."
        if numbers
        else "There is nothing to undo: you decided nothing in the last day."
    )
    if request.headers.get("Accept", "").startswith("application/json"):
        return JsonResponse({"told": told, "numbers": numbers[:AHEAD]})
    messages.add_message(request, messages.SUCCESS if numbers else messages.WARNING, told)
    return SeeOther(_address(form, view=request.GET.get("view") == "list"))


@may_review
@require_POST
def bulk(request: HttpRequest) -> HttpResponse:
    """Decide on the rows that were ticked, or, asked once more, on all that the filter finds."""
    form, sent = _filter_of(request), request.POST
    seen, rejection = _moment(sent.get("seen", "")), sent.get("reason", "")
    status = Feedback.Status.REJECTED if sent.get("action") == "reject" else Feedback.Status.APPROVED
    rows = form.found()
    if sent.get("which") != "all":
        rows = Feedback.objects.filter(pk__in=[_number(each) for each in sent.getlist("row")])
    rows = rows.exclude(status=status).order_by()
    problem = ""
    if seen is None or not rows.exists():
        problem = "Tick what you want to decide on first."
    elif status == Feedback.Status.REJECTED and rejection not in Feedback.Rejection.values:
        problem = "Say why they are rejected."
    if problem:
        messages.error(request, problem)
        return SeeOther(_address(form, view=True))
    same = rows.filter(updated_at__lt=seen)
    if sent.get("which") == "all" and not sent.get("sure"):
        context = {"count": same.count(), "status": status, "query": urlencode(form.kept), "sent": sent}
        return render(request, "webui/review_all.html", context)
    changed_meanwhile = rows.count() - same.count()
    done = decisions.feedback_decide(same, status, reviewer=cast(User, request.user), rejection=rejection)
    told = [f"{status.label}: {done.changed}."]
    if done.returned:
        told.append(f"{done.returned} went back to review beside what somebody else wrote of the same photo.")
    if changed_meanwhile:
        told.append(f"{changed_meanwhile} changed while you looked at the list; please look again.")
    messages.success(request, " ".join(told))
    return SeeOther(_address(form, view=True))


@may_review
@require_safe
def log(request: HttpRequest) -> HttpResponse:
    """Who decided what and when, the newest first; `?id=` of one piece of feedback."""
    number, skip = _number(request.GET.get("id", "")), _number(request.GET.get("skip", ""))
    kind = ContentType.objects.get_for_model(Feedback)
    entries = (
        LogEntry.objects.filter(content_type=kind).select_related("user").order_by("-action_time", "-pk")
    )
    if number:
        entries = entries.filter(object_id=str(number))
    shown = list(entries[skip : skip + LISTED + 1])
    reasons = dict(Feedback.Rejection.choices)
    context = {
        "entries": [{"entry": entry, "told": _entry_told(entry, reasons)} for entry in shown[:LISTED]],
        "number": number,
        "newer": max(0, skip - LISTED) if skip else None,
        "older": skip + LISTED if len(shown) > LISTED else None,
    }
    return render(request, "webui/review_log.html", context)


def _entry_told(entry: LogEntry, reasons: dict[str, str]) -> str:
    """ "Rejected: wrong." with the reason in words."""
    done, _, code = str(entry.get_change_message()).rstrip(".").partition(": ")
    return f"{done}: {reasons[code]}" if code in reasons else done or str(entry)


@may_review
@require_safe
def photo(_: HttpRequest, pk: int) -> FileResponse:
    """The photo that feedback is about, for whoever reviews it."""
    shown = get_object_or_404(Photo.objects.filter(captions__feedback__isnull=False).distinct(), pk=pk)
    try:
        response = FileResponse(photo_open(shown), content_type="image/jpeg")
    except FileNotFoundError:
        raise Http404("The file of this photo is missing in the photo storage.") from None
    response["Cache-Control"] = "private, max-age=3600"  # what a photo's number shows never changes
    return response


def _number(text: str) -> int:
    """A number as a form or a link sends it; 0 for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0


def _moment(text: str) -> Any:
    """A moment as a page wrote it; None where it is none, or says not in which time zone."""
    try:
        moment = parse_datetime(text)
    except ValueError:
        return None
    return moment if moment is not None and timezone.is_aware(moment) else None
