"""Pages of somebody's history, found by place in the order instead of by number, so that none needs a COUNT.

A cursor is the creation time and id of the caption at a page's edge; it outlives that caption's deletion.
"""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

from django.http import Http404

from captioner.models import Caption, CaptionQuerySet

PAGE_SIZE = 24


@dataclass(frozen=True, slots=True)
class Page:
    """Captions, newest first, with the cursors of the neighbouring pages; empty where there is none."""

    captions: list[Caption]
    newer: str = ""
    older: str = ""


def page_of(captions: CaptionQuerySet, *, newer: str = "", older: str = "", size: int = PAGE_SIZE) -> Page:
    """The page after the cursor `older`, before the cursor `newer`, or the first one. Raises `Http404`."""
    if newer:
        return _page_newer(captions, _cursor_read(newer), size)
    found = list((captions.older_than(*_cursor_read(older)) if older else captions)[: size + 1])
    if older and not found:
        return page_of(captions, size=size)
    shown = found[:size]
    return Page(
        shown,
        newer=_cursor(shown[0]) if older else "",
        older=_cursor(shown[-1]) if len(found) > size else "",
    )


def _page_newer(captions: CaptionQuerySet, place: tuple[datetime, uuid.UUID], size: int) -> Page:
    found = list(captions.newer_than(*place).reverse()[: size + 1])
    if len(found) <= size:
        # Near the start, show a full first page instead of the few that are newer.
        return page_of(captions, size=size)
    shown = found[size - 1 :: -1]
    return Page(shown, newer=_cursor(shown[0]), older=_cursor(shown[-1]))


def _cursor(caption: Caption) -> str:
    return f"{caption.created_at.isoformat()}~{caption.pk}"


def _cursor_read(cursor: str) -> tuple[datetime, uuid.UUID]:
    moment, _, pk = cursor.partition("~")
    try:
        return datetime.fromisoformat(moment).astimezone(UTC), uuid.UUID(pk)
    except (ValueError, OverflowError):
        raise Http404("This page link is damaged. Start again from your newest captions.") from None
