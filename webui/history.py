"""The history: a person's own captions, a page at a time, and to take along."""

import uuid
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlencode

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.timezone import is_aware
from django.views.decorators.http import require_POST, require_safe

from captioner.captions.captions import DISCARDED_FOR, captions_discard, captions_take_back
from captioner.captions.states import captions_outcomes
from captioner.http.exports import export_response
from captioner.http.owner import owner_of
from captioner.http.paging import Page, page_of
from captioner.models import Caption, CaptionQuerySet
from webui.base import SeeOther, may_caption, own_captions
from webui.forms import CaptionFilterForm, ExportForm

PAGE_SIZE = 24


@dataclass(frozen=True, slots=True)
class Listing:
    """Those of a person's captions that an address asks for."""

    filter: CaptionFilterForm
    found: CaptionQuerySet
    kept: dict[str, str]  # what links to other pages of it repeat

    def page(self, request: HttpRequest, size: int) -> Page[Caption]:
        """The page that the address names. Raises `Http404` where there never was one."""
        newer, older = request.GET.get("newer", ""), request.GET.get("older", "")
        if self.filter.is_valid() and self.filter.cleaned_data["job"]:
            if not (older or "0").isdecimal():
                raise Http404("This page link is damaged. Start again from the job.")
            rest = self.found.filter(job_photo__index__gte=int(older or "0"))
            rows = list(rest.select_related("job_photo")[: size + 1])
            return Page(rows[:size], older=str(rows[size].job_photo.index) if len(rows) > size else "")
        try:
            page = page_of(self.found, size=size, newer=newer, older=older)
        except ValueError:
            raise Http404("This page link is damaged. Start again from your newest captions.") from None
        if (newer and not page.newer) or (older and not page.rows):
            # Near the start a full first page is of more use than the few that are newer; so it is than an empty page.
            page = page_of(self.found, size=size)
        return page

    def context(self, page: Page[Caption]) -> dict[str, object]:
        """What the pages of captions have in common."""
        return {
            "captions": page.rows,
            "newer_link": page.newer and f"?{urlencode(self.kept | {'newer': page.newer})}",
            "older_link": page.older and f"?{urlencode(self.kept | {'older': page.older})}",
            "filter": self.filter,
            "kept": self.kept,
            "query": urlencode(self.kept),
        }


def captions_listed(request: HttpRequest) -> Listing:
    """Reads the address, or the form, of captions. A bad filter finds all."""
    asked = request.POST if request.method == "POST" else request.GET
    wish = CaptionFilterForm(asked)
    found = own_captions(request)
    if wish.is_valid():
        found = wish.found(found)
    names = [name for name in wish.fields if asked.get(name) and name not in wish.errors]
    kept = {name: asked[name] for name in names}
    return Listing(wish, found, kept)


@may_caption
@require_safe
def captions(request: HttpRequest) -> HttpResponse:
    """All captions of the person, or those found."""
    listing = captions_listed(request)
    page = listing.page(request, PAGE_SIZE)
    context = listing.context(page) | {"outcomes": captions_outcomes(page.rows)}
    if moment := _moment(request.GET.get("deleted", "")):
        discarded = Caption.objects.discarded_by(owner_of(request)).filter(deleted_at=moment).count()
        context |= {
            "discarded": discarded,
            "discarded_at": moment.isoformat(),
            "minutes": DISCARDED_FOR.seconds // 60,
        }
    return render(request, "webui/captions.html", context, status=200 if listing.filter.is_valid() else 400)


@may_caption
@require_POST
def discard(request: HttpRequest) -> HttpResponse:
    """Delete what was ticked; for some minutes it can be taken back."""
    selected = own_captions(request).filter(pk__in=_selected(request))
    moment = captions_discard(selected)
    if moment is None:
        messages.error(request, "Tick the captions to delete first.")
        return SeeOther(reverse("captions"))
    return SeeOther(f"{reverse('captions')}?{urlencode({'deleted': moment.isoformat()})}")


@may_caption
@require_POST
def take_back(request: HttpRequest) -> HttpResponse:
    """Undo `discard`."""
    moment = _moment(request.POST.get("deleted", ""))
    count = captions_take_back(owner_of(request), moment) if moment else 0
    if count:
        messages.success(request, f"{count} caption{'s are' if count > 1 else ' is'} back.")
    else:
        messages.error(request, "It is too late: they are gone for good.")
    return SeeOther(reverse("captions"))


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if is_aware(moment) else None


@may_caption
@require_POST
def export(request: HttpRequest) -> HttpResponse | StreamingHttpResponse:
    """Those that were selected (`id`), or all that the page's filter finds, as a file."""
    listing, form = captions_listed(request), ExportForm(request.POST)
    selected = _selected(request)
    if not form.is_valid() or not listing.filter.is_valid():
        messages.error(request, "This format or filter is not there. Nothing was exported.")
        return SeeOther(reverse("captions"))
    found = listing.found.filter(pk__in=selected) if selected else listing.found
    return export_response(found, form.cleaned_data["format"], bom=form.cleaned_data["bom"])


def _selected(request: HttpRequest) -> list[uuid.UUID]:
    """The captions that were ticked. Raises `Http404` for what is no id."""
    try:
        return [uuid.UUID(part) for part in request.POST.getlist("id")]
    except ValueError:
        raise Http404("What was selected is not there.") from None
