import re
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from captioner.captions.captions import DISCARDED_FOR, captions_sweep
from captioner.captions.feedback import feedback_review, feedback_submit
from captioner.models import Caption, Feedback, Owner
from tests.conftest import FakeEngine
from tests.webui.pages import make_captions, text
from webui.history import PAGE_SIZE


@pytest.fixture
def client(client: Client, user: User) -> Client:
    client.force_login(user)
    return client


def shown(page: str) -> list[str]:
    """The ids of the captions on the page, in order."""
    return re.findall(r'class="card-link" href="/captions/([^"]+)"', page)


def link(page: str, relation: str) -> str | None:
    found = re.search(rf'href="([^"]+)" rel="{relation}"', page)
    return found and f"/captions/{found[1].replace('&amp;', '&')}"


def ids(captions: list[Caption]) -> list[str]:
    return [str(caption.pk) for caption in reversed(captions)]


def test_an_empty_history_invites_to_a_first_photo(client: Client) -> None:
    assert "Nothing here yet." in text(client.get("/captions/"))


def test_captions_are_shown_newest_first_with_what_the_person_said(
    client: Client, fake_engine: FakeEngine, user: User
) -> None:
    captions = make_captions(Owner(user=user), 3)
    feedback_submit(captions[0], rating=9, ideal_caption="my own words")
    page = text(client.get("/captions/"))
    assert shown(page) == ids(captions)
    assert '</span>9<span class="badge-of">/10</span>' in page
    assert "my own words" in page
    assert 'loading="lazy"' in page
    assert f'href="/captions/{captions[0].pk}/delete"' in page


def test_pages_follow_each_other_in_both_directions(
    client: Client, fake_engine: FakeEngine, user: User
) -> None:
    everything = ids(make_captions(Owner(user=user), 2 * PAGE_SIZE + 5))
    first = text(client.get("/captions/"))
    second = text(client.get(link(first, "next")))
    third = text(client.get(link(second, "next")))
    assert shown(first) + shown(second) + shown(third) == everything
    assert (link(first, "prev"), link(third, "next")) == (None, None)
    assert shown(text(client.get(link(third, "prev")))) == shown(second)
    assert shown(text(client.get(link(second, "prev")))) == shown(first)
    assert link(text(client.get(link(second, "prev"))), "prev") is None


def test_captions_of_the_same_moment_are_not_lost_between_pages(
    client: Client, fake_engine: FakeEngine, user: User
) -> None:
    captions = make_captions(Owner(user=user), PAGE_SIZE + 3)
    Caption.objects.update(created_at=captions[0].created_at)
    first = text(client.get("/captions/"))
    second = text(client.get(link(first, "next")))
    assert {*shown(first), *shown(second)} == {*ids(captions)}
    assert len(shown(first)) + len(shown(second)) == len(captions)


def test_a_page_stays_where_it_is_when_its_edge_is_deleted(
    client: Client, fake_engine: FakeEngine, user: User
) -> None:
    captions = make_captions(Owner(user=user), PAGE_SIZE + 3)
    first = text(client.get("/captions/"))
    Caption.objects.get(pk=shown(first)[-1]).delete()
    assert shown(text(client.get(link(first, "next")))) == ids(captions)[PAGE_SIZE:]


def test_a_page_that_became_empty_shows_the_newest_captions(
    client: Client, fake_engine: FakeEngine, user: User
) -> None:
    captions = make_captions(Owner(user=user), PAGE_SIZE + 1)
    first = text(client.get("/captions/"))
    captions[0].delete()
    assert shown(text(client.get(link(first, "next")))) == shown(first)


@pytest.mark.parametrize(
    "cursor", ["x", "~", "2024-01-01T00:00:00+00:00~x", "0001-01-01T00:00:00+14:00~" + "0" * 32]
)
@pytest.mark.parametrize("side", ["older", "newer"])
def test_a_damaged_page_link_is_not_found(client: Client, side: str, cursor: str) -> None:
    assert client.get(f"/captions/?{side}={quote(cursor)}").status_code == 404


def test_search_finds_the_models_words_and_ones_own(
    client: Client, fake_engine: FakeEngine, user: User
) -> None:
    captions = make_captions(Owner(user=user), 4)
    feedback_submit(captions[1], ideal_caption="a very special thing")
    assert shown(text(client.get("/captions/?q=NUMBER+2"))) == [str(captions[2].pk)]
    assert shown(text(client.get("/captions/?q=special"))) == [str(captions[1].pk)]
    nothing = text(client.get("/captions/?q=%3Cb%3E"))
    assert "No caption has “&lt;b&gt;”." in nothing


def test_captions_are_narrowed_down(
    client: Client, fake_engine: FakeEngine, user: User, reviewer: User
) -> None:
    captions = make_captions(Owner(user=user), 5)
    Caption.objects.filter(pk__in=[caption.pk for caption in captions[:3]]).update(least_probability=0.9)
    feedback_submit(captions[0], ideal_caption="my wall")
    feedback_submit(captions[1], rating=4)
    feedback_review(Feedback.objects.filter(caption=captions[1]), Feedback.Status.APPROVED, reviewer=reviewer)
    Caption.objects.filter(pk=captions[2].pk).update(model_version="old", looked_at=captions[2].created_at)
    Caption.objects.filter(pk=captions[4].pk).update(created_at=datetime(2020, 2, 3, 23, 30, tzinfo=UTC))

    def found(query: str) -> list[str]:
        return shown(text(client.get(f"/captions/?{query}")))

    one = [[str(caption.pk)] for caption in captions]
    assert found("only=corrected") == one[0]
    assert found("only=approved") == one[1]
    assert found("version=old") == one[2]
    assert found("only=doubtful") == found("only=unseen") == one[3] + one[4]
    assert found("until=2020-02-03") == found("since=2020-02-03&until=2020-02-03") == one[4]
    assert found("since=2020-02-04") == ids(captions[:4])
    assert found("only=unseen&version=old") == []
    assert "No caption is like that." in text(client.get("/captions/?only=unseen&version=old"))


@pytest.mark.parametrize("query", ["only=x", "since=yesterday", "until=2020-13-01", "job=x"])
def test_a_filter_there_is_not_is_told(client: Client, query: str) -> None:
    response = client.get(f"/captions/?{query}")
    assert response.status_code == 400
    assert 'role="alert"' in text(response)


def test_a_selection_is_deleted_and_taken_back(
    client: Client, fake_engine: FakeEngine, user: User, other_user: User
) -> None:
    captions = make_captions(Owner(user=user), 3)
    [theirs] = make_captions(Owner(user=other_user), 1)
    ticked = [str(each.pk) for each in (captions[0], captions[2], theirs)]
    response = client.post("/captions/discard", {"id": ticked})
    page = text(client.get(response.url))
    assert "2 captions deleted." in page
    assert shown(page) == [str(captions[1].pk)]
    assert client.get(f"/captions/{captions[0].pk}").status_code == 404
    assert client.get(f"/api/v1/captions/{captions[0].pk}").status_code == 404
    [moment] = re.findall(r'name="deleted" value="([^"]+)"', page)
    stranger = Client()
    stranger.force_login(other_user)
    assert "too late" in text(stranger.post("/captions/take-back", {"deleted": moment}, follow=True))
    assert "2 captions are back." in text(
        client.post("/captions/take-back", {"deleted": moment}, follow=True)
    )
    assert shown(text(client.get("/captions/"))) == ids(captions)


def test_what_was_deleted_is_gone_for_good_after_a_while(
    client: Client, fake_engine: FakeEngine, user: User
) -> None:
    captions = make_captions(Owner(user=user), 3)
    client.post("/captions/discard", {"id": [str(captions[0].pk), str(captions[1].pk)]})
    assert captions_sweep() == 0
    late = timezone.now() - DISCARDED_FOR - timedelta(seconds=1)
    Caption.objects.filter(pk=captions[0].pk).update(deleted_at=late)
    assert captions_sweep() == 1
    assert Caption.objects.count() == 2
    undo = client.post("/captions/take-back", {"deleted": late.isoformat()}, follow=True)
    assert "too late" in text(undo)


@pytest.mark.parametrize("moment", ["", "x", "2026-01-01T00:00:00", "\0"])
def test_a_damaged_undo_is_too_late(client: Client, moment: str) -> None:
    assert "too late" in text(client.post("/captions/take-back", {"deleted": moment}, follow=True))
    assert client.get("/captions/", {"deleted": moment}).status_code == 200


def test_nothing_ticked_deletes_nothing(client: Client, fake_engine: FakeEngine, user: User) -> None:
    make_captions(Owner(user=user), 1)
    assert "Tick the captions" in text(client.post("/captions/discard", follow=True))
    assert client.post("/captions/discard", {"id": "x"}).status_code == 404
    assert Caption.objects.filter(deleted_at=None).count() == 1


def test_the_pages_of_captions_lead_to_the_next_and_the_one_before(
    client: Client, fake_engine: FakeEngine, user: User
) -> None:
    old, middle, new = make_captions(Owner(user=user), 3)
    page = text(client.get(f"/captions/{middle.pk}"))
    assert f'href="/captions/{new.pk}" rel="prev"' in page
    assert f'href="/captions/{old.pk}" rel="next"' in page
    assert 'rel="next"' not in text(client.get(f"/captions/{old.pk}"))


def test_search_is_kept_from_page_to_page(client: Client, fake_engine: FakeEngine, user: User) -> None:
    make_captions(Owner(user=user), PAGE_SIZE + 3)
    first = text(client.get("/captions/?q=number"))
    second = text(client.get(link(first, "next")))
    assert (len(shown(first)), len(shown(second))) == (PAGE_SIZE, 2)


@pytest.mark.parametrize("query", ["a%00b", "x" * 201])
def test_a_search_that_cannot_be_done_is_a_bad_request(client: Client, query: str) -> None:
    assert client.get(f"/captions/?q={query}").status_code == 400


def test_nobody_sees_the_captions_of_others(
    client: Client, fake_engine: FakeEngine, other_user: User
) -> None:
    make_captions(Owner(user=other_user), 2)
    assert shown(text(client.get("/captions/"))) == []
    assert shown(text(Client().get("/captions/"))) == []


def test_a_page_takes_one_query_for_all_its_captions_and_never_counts(
    client: Client, fake_engine: FakeEngine, user: User, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    make_captions(Owner(user=user), PAGE_SIZE + 3)
    # Session, user, what the user may (for the menu), captions.
    with django_assert_num_queries(5) as captured:
        client.get("/captions/")
    assert not [query for query in captured.captured_queries if "COUNT" in query["sql"]]
