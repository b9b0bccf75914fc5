"""Pages found by place: what pages and the API share."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth.models import User

from captioner.http.paging import Page, page_of
from captioner.models import Job

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)

pytestmark = pytest.mark.django_db


@pytest.fixture
def jobs(user: User) -> list[Job]:
    """Five jobs, newest first; the middle three were made in the same moment."""
    made = [Job.objects.create(user=user, photo_count=1) for _ in range(5)]
    for job, minute in zip(made, (2, 1, 1, 1, 0), strict=True):
        Job.objects.filter(pk=job.pk).update(created_at=NOON + timedelta(minutes=minute))
    return list(Job.objects.order_by("-created_at", "-id"))


def page(**cursors: str) -> Page[Job]:
    return page_of(Job.objects.all(), size=2, **cursors)


def test_walking_there_and_back_meets_each_row_once(jobs: list[Job]) -> None:
    first = page()
    second = page(older=first.older)
    third = page(older=second.older)
    assert [first.rows, second.rows, third.rows] == [jobs[:2], jobs[2:4], jobs[4:]]
    assert (first.newer, third.older) == ("", "")
    assert page(newer=third.newer) == second
    assert page(newer=second.newer) == first


def test_a_page_that_became_empty_leads_back_to_what_is_left(jobs: list[Job]) -> None:
    second = page(older=page().older)
    jobs[4].delete()
    empty = page(older=second.older)
    assert (empty.rows, empty.older) == ([], "")
    assert page(newer=empty.newer).rows == jobs[2:4]


def test_before_the_newest_there_is_an_empty_page_that_leads_to_it(jobs: list[Job]) -> None:
    second = page(older=page().older)
    Job.objects.filter(pk__in=[job.pk for job in jobs[:2]]).delete()
    empty = page(newer=second.newer)
    assert (empty.rows, empty.newer) == ([], "")
    assert page(older=empty.older).rows == jobs[2:4]


def test_nothing_at_all_is_one_empty_page() -> None:
    assert page() == Page([])


@pytest.mark.parametrize(
    "cursor", ["x", "~", f"{NOON.isoformat()}~x", f"0001-01-01T00:00:00+14:00~{uuid.UUID(int=1)}"]
)
@pytest.mark.parametrize("side", ["older", "newer"])
def test_a_cursor_that_no_page_has(side: str, cursor: str) -> None:
    with pytest.raises(ValueError):
        page(**{side: cursor})
