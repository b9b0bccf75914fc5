"""Pages of what somebody owns, newest first, found by place in the order instead of by number.

So none needs a COUNT, and a page stays where it is while newer rows come. A cursor is the creation time and id of the
row at a page's edge; it outlives that row's deletion.
"""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic

from captioner.models import OwnedQuerySet, OwnedT


@dataclass(frozen=True, slots=True)
class Page(Generic[OwnedT]):
    """Rows, newest first, with the cursors of the neighbouring pages; empty where there is none."""

    rows: list[OwnedT]
    newer: str = ""
    older: str = ""


def page_of(rows: OwnedQuerySet[OwnedT], *, size: int, newer: str = "", older: str = "") -> Page[OwnedT]:
    """Returns the page after the cursor `older`, the one before the cursor `newer`, or the first one.

    Raises `ValueError` for a cursor that no page has.
    """
    place = _cursor_read(newer or older) if newer or older else None
    if place is not None and newer:
        found = list(rows.newer_than(*place).reverse()[: size + 1])
        shown = found[:size][::-1]
        has_newer, has_older = len(found) > size, True
    else:
        found = list((rows if place is None else rows.older_than(*place))[: size + 1])
        shown = found[:size]
        has_newer, has_older = place is not None, len(found) > size
    if shown:
        first, last = _cursor(shown[0].created_at, shown[0].pk), _cursor(shown[-1].created_at, shown[-1].pk)
    elif place is not None:
        # The row at the cursor itself belongs to the neighbours of an empty page: they begin one id beside it.
        moment, pk = place
        first, last = _cursor(moment, uuid.UUID(int=pk.int - 1)), _cursor(moment, uuid.UUID(int=pk.int + 1))
    else:
        return Page([])
    return Page(shown, newer=first if has_newer else "", older=last if has_older else "")


def _cursor(created_at: datetime, pk: uuid.UUID) -> str:
    return f"{created_at.isoformat()}~{pk}"


def _cursor_read(cursor: str) -> tuple[datetime, uuid.UUID]:
    moment, _, pk = cursor.partition("~")
    try:
        return datetime.fromisoformat(moment).astimezone(UTC), uuid.UUID(pk)
    except OverflowError as error:
        raise ValueError("A time of this year may have no counterpart in UTC.") from error
