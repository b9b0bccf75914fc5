"""The history: a person's own captions, a page at a time."""

import uuid
from urllib.parse import urlencode

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from captioner.http.paging import page_of
from webui.base import may_caption, own_captions
from webui.forms import SearchForm

PAGE_SIZE = 24


@may_caption
@require_safe
def captions(request: HttpRequest) -> HttpResponse:
    """All captions of the person, those found by `?q=`, or those just made (`?new=id,id`)."""
    search = SearchForm(request.GET)
    query = search.cleaned_data["q"] if search.is_valid() else ""
    try:
        new = [uuid.UUID(part) for part in request.GET.get("new", "").split(",") if part]
    except ValueError:
        raise Http404("This link to new captions is damaged.") from None
    found = own_captions(request)
    if new:
        found = found.filter(pk__in=new[: settings.UPLOAD_MAX_PHOTOS])
    if query:
        found = found.search(query)
    newer, older = request.GET.get("newer", ""), request.GET.get("older", "")
    try:
        page = page_of(found, size=PAGE_SIZE, newer=newer, older=older)
    except ValueError:
        raise Http404("This page link is damaged. Start again from your newest captions.") from None
    if (newer and not page.newer) or (older and not page.rows):
        # Near the start a full first page is of more use than the few that are newer; so it is than an empty page.
        page = page_of(found, size=PAGE_SIZE)
    if new:  # in the order in which they were chosen
        page.rows.sort(key=lambda caption: new.index(caption.pk))
    kept = {"q": query} if query else {}
    context = {
        "captions": page.rows,
        "newer_link": page.newer and f"?{urlencode(kept | {'newer': page.newer})}",
        "older_link": page.older and f"?{urlencode(kept | {'older': page.older})}",
        "query": query,
        "is_new": bool(new),
        "search": search,
    }
    return render(request, "webui/captions.html", context, status=200 if search.is_valid() else 400)
