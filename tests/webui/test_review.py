"""The review page without JavaScript: who gets in, what it shows, decisions, undo, filters, many at once, the log."""

import re
import uuid
from collections.abc import Callable

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone

from captioner.captions.captions import caption_create
from captioner.captions.feedback import feedback_submit
from captioner.captions.states import feedback_states
from captioner.models import Caption, Feedback, Owner
from tests.conftest import FakeEngine
from tests.photos import draw_jpeg
from tests.webui.pages import text

pytestmark = pytest.mark.django_db

Give = Callable[..., Feedback]


@pytest.fixture
def rev(db: None) -> User:
    """Somebody who may review, and nothing else."""
    user = User.objects.create_user("rev", password="correct horse battery")
    user.user_permissions.add(Permission.objects.get(codename="review_feedback"))
    return user


@pytest.fixture
def client(client: Client, rev: User) -> Client:
    client.force_login(rev)
    return client


@pytest.fixture
def give(fake_engine: FakeEngine) -> Give:
    """Feedback of a new visitor on a photo of its own."""

    def make(ideal: str = "", *, rating: int | None = None, number: int = 0, confidence: float | None = None):
        fake_engine.confidence = confidence
        owner = Owner(visitor=uuid.uuid4())
        caption = caption_create(draw_jpeg((40 + number, 30)), owner=owner, source=Caption.Source.WEB)
        return feedback_submit(caption, rating=rating, ideal_caption=ideal)[0]

    return make


def shown(client: Client, query: str = "") -> list[int]:
    """The numbers of the items that the page holds, the one shown first."""
    response = client.get(f"/review/{query}")
    assert response.status_code == 200
    return [int(each) for each in re.findall(r'data-item="(\d+)"', text(response))]


def decide(client: Client, row: Feedback, action: str, query: str = "", **fields: str):
    seen = {"seen": row.updated_at.isoformat(), "was": row.status}
    return client.post(f"/review/{row.pk}{query}", seen | {"action": action} | fields)


# --- Who gets in ---


def test_only_reviewers_get_in_and_need_no_other_right(client: Client, user: User, give: Give) -> None:
    row = give("a cat")
    photo = f"/review/photos/{row.caption.photo_id}"
    assert client.get("/review/").status_code == 200
    assert b"".join(client.get(photo).streaming_content).startswith(b"\xff\xd8")
    assert 'href="/review/"' in text(client.get("/"))
    other = Client()
    for address in ("/review/", photo, "/review/log", "/review/blind", "/review/votes"):
        assert other.get(address).url.startswith("/login?next=")
    other.force_login(user)
    for address in ("/review/", photo, "/review/log", "/review/blind", "/review/votes"):
        assert other.get(address).status_code == 403
    assert decide(other, row, "approve").status_code == 403
    assert other.post("/review/undo").status_code == other.post("/review/many").status_code == 403
    assert 'href="/review/"' not in text(other.get("/"))


def test_photos_that_nobody_gave_feedback_on_are_not_a_reviewers_to_see(
    client: Client, caption: Caption
) -> None:
    assert client.get(f"/review/photos/{caption.photo_id}").status_code == 404


def test_blind_captions_and_votes_are_reached_and_open_to_a_reviewer(client: Client) -> None:
    page = text(client.get("/review/"))
    for address in ("/review/blind", "/review/votes", "/review/log"):
        assert f'href="{address}"' in page
        assert client.get(address).status_code == 200


# --- One by one ---


def test_the_page_compares_word_by_word_and_escapes(client: Client, give: Give) -> None:
    row = give("a <b>small</b> photo", rating=2)
    page = text(client.get("/review/"))
    assert "<del>40 by 30</del>" in page
    assert "<ins>&lt;b&gt;small&lt;/b&gt;</ins>" in page
    assert "<b>small" not in page
    assert f'src="/review/photos/{row.caption.photo_id}"' in page
    assert "<strong data-left>1</strong> left, <strong data-done>0</strong> done today" in page


def test_decisions_are_kept_and_lead_to_the_next(client: Client, rev: User, give: Give) -> None:
    rows = [give(f"ideal {number}", number=number) for number in range(4)]
    assert shown(client) == [row.pk for row in rows[::-1]]
    assert decide(client, rows[3], "approve").url == "/review/"
    decide(client, rows[2], "reject", reason="wrong")
    decide(client, rows[1], "duplicate")
    decide(client, rows[0], "edit", text="  ideal,  and mended ")
    done = {row.pk: row for row in Feedback.objects.all()}
    assert [(done[row.pk].status, done[row.pk].rejection) for row in rows] == [
        ("approved", ""),
        ("rejected", "duplicate"),
        ("rejected", "wrong"),
        ("approved", ""),
    ]
    assert {row.reviewed_by for row in done.values()} == {rev}
    edited = done[rows[0].pk]
    assert (edited.ideal_caption, edited.proposed) == ("ideal, and mended", "ideal 0")
    page = text(client.get("/review/"))
    assert "Nothing waits for review." in page
    assert "<strong data-done>4</strong> done today" in page


@pytest.mark.parametrize(
    ("action", "fields", "told"),
    [
        ("reject", {}, "Say why it is rejected."),
        ("reject", {"reason": "because"}, "Say why it is rejected."),
        ("edit", {"text": " "}, "A caption has 1 to"),
        ("edit", {"text": "x" * 5000}, "A caption has 1 to"),
    ],
)
def test_a_decision_that_lacks_something_is_not_taken(
    client: Client, give: Give, action: str, fields: dict[str, str], told: str
) -> None:
    row = give("a cat")
    page = text(client.get(decide(client, row, action, **fields).url))
    assert told in page
    assert Feedback.objects.get().status == "pending"


def test_other_buttons_and_methods_are_refused(client: Client, give: Give) -> None:
    row = give("a cat")
    assert decide(client, row, "delete").status_code == 404
    assert client.get(f"/review/{row.pk}").status_code == 405
    assert client.post("/review/999", {}).status_code == 404
    assert client.get("/review/?status=nonsense").status_code == 404
    assert client.get("/review/?id=9" + "9" * 30).status_code == 404
    assert client.get("/review/?skip=-1").status_code == 200


def test_what_changed_or_was_decided_meanwhile_is_shown_again(
    client: Client, give: Give, reviewer: User
) -> None:
    row = give("a cat")
    feedback_submit(row.caption, ideal_caption="two cats")
    told = text(client.get(decide(client, row, "approve").url))
    assert "changed while you looked at it" in told
    row = Feedback.objects.get()
    Feedback.objects.update(status="rejected", reviewed_by=reviewer)
    answer = client.post(
        f"/review/{row.pk}",
        {"action": "approve", "seen": row.updated_at.isoformat(), "was": "pending"},
        headers={"Accept": "application/json"},
    )
    assert answer.status_code == 409
    assert "changed while you looked at it" in answer.json()["told"]
    assert Feedback.objects.get().status == "rejected"


def test_the_reason_is_told_to_whoever_said_it(client: Client, give: Give) -> None:
    row = give("a cat")
    decide(client, row, "reject", reason="wrong")
    [state] = feedback_states(Feedback.objects.get())
    assert state.told == "Left out: a reviewer did not approve it. It does not say what the photo shows"


# --- Undo ---


def test_undo_goes_back_one_decision_after_the_other(client: Client, give: Give) -> None:
    first, second = give("ideal 0"), give("ideal 1", number=1)
    decide(client, first, "edit", text="mended")
    decide(client, second, "reject", reason="worse")
    assert f"Feedback {second.pk} is back in review." in text(client.post("/review/undo", follow=True))
    second.refresh_from_db()
    assert (second.status, second.rejection, second.reviewed_by) == ("pending", "", None)
    client.post("/review/undo")
    first.refresh_from_db()
    assert (first.status, first.ideal_caption, first.proposed) == ("pending", "ideal 0", None)
    assert "There is nothing to undo" in text(client.post("/review/undo", follow=True))


def test_an_edit_of_a_mere_rating_is_taken_back_to_none(client: Client, give: Give) -> None:
    row = give(rating=1)
    decide(client, row, "edit", text="a better one")
    assert Feedback.objects.get().ideal_caption == "a better one"
    client.post("/review/undo")
    assert Feedback.objects.get().ideal_caption == ""


def test_nobody_undoes_what_others_decided(client: Client, give: Give, reviewer: User) -> None:
    give("a cat")
    Feedback.objects.update(status="approved", reviewed_by=reviewer, reviewed_at=timezone.now())
    client.post("/review/undo")
    assert Feedback.objects.get().status == "approved"


# --- Filters and order ---


def test_filter_and_place_go_along(client: Client, give: Give) -> None:
    rows = [
        give("" if number % 2 else f"ideal {number}", rating=number + 1, number=number) for number in range(6)
    ]
    query = "?rating=low&said=correction"
    wanted = [rows[0].pk, rows[2].pk]
    assert shown(client, query) == wanted
    page = text(client.get(f"/review/{query}"))
    assert re.search(r'action="/review/\d+\?said=correction&amp;rating=low"', page)
    assert decide(client, rows[0], "approve", query).url == "/review/?said=correction&rating=low"
    assert shown(client, query) == wanted[1:]
    assert shown(client, "?status=approved") == [rows[0].pk]
    assert shown(client, "?q=ideal+4") == [rows[4].pk]
    assert shown(client, f"?id={rows[5].pk}&status=approved") == [rows[5].pk]
    assert shown(client, "?skip=1")[0] == rows[2].pk or len(shown(client, "?skip=1")) == 4


def test_a_filter_of_twenty_stays_twenty(client: Client, give: Give) -> None:
    rows = [give(f"ideal {number}", rating=1 if number < 20 else 9, number=number) for number in range(25)]
    assert "<strong data-left>20</strong> left" in text(client.get("/review/?rating=low"))
    found = shown(client, "?rating=low")
    while found:
        decide(client, Feedback.objects.get(pk=found[0]), "approve", "?rating=low")
        found = shown(client, "?rating=low")
    assert Feedback.objects.filter(status="approved").count() == 20
    assert {row.pk for row in Feedback.objects.pending()} == {row.pk for row in rows[20:]}


def test_what_is_worth_most_comes_first(client: Client, give: Give) -> None:
    sure, unsure = give("a", rating=1, confidence=0.9), give("b", rating=9, number=1, confidence=0.2)
    third = give("c", rating=5, number=2)
    Feedback.objects.filter(pk=third.pk).update(disagrees_with=sure)
    assert shown(client) == [sure.pk, third.pk, unsure.pk]
    assert shown(client, "?order=unsure")[:2] == [unsure.pk, sure.pk]
    assert shown(client, "?order=disagreement")[0] == third.pk
    assert shown(client, "?order=newest")[0] == third.pk
    assert "Somebody else wrote" in text(client.get(f"/review/?id={third.pk}"))


# --- Many at once ---


def many(client: Client, query: str = "", **fields: object):
    seen = re.search(r'name="seen" value="([^"]+)"', text(client.get(f"/review/?view=list&{query}")))
    return client.post(f"/review/many?{query}", {"seen": seen[1] if seen else "", **fields}, follow=True)


def test_those_ticked_are_decided_on_with_a_count_and_undone_together(client: Client, give: Give) -> None:
    rows = [give(f"ideal {number}", number=number) for number in range(4)]
    page = text(many(client, action="approve", which="ticked", row=[row.pk for row in rows[:3]]))
    assert "Approved: 3." in page
    assert Feedback.objects.filter(status="approved").count() == 3
    assert "3 are back in review." in text(client.post("/review/undo?view=list", follow=True))
    assert Feedback.objects.pending().count() == 4


def test_all_that_the_filter_finds_are_asked_about_first(client: Client, give: Give) -> None:
    for number in range(5):
        give(f"ideal {number}", rating=1 if number < 3 else 9, number=number)
    page = text(many(client, "rating=low", action="reject", which="all", reason="worse"))
    assert "Reject 3?" in page
    assert Feedback.objects.pending().count() == 5
    page = text(many(client, "rating=low", action="reject", which="all", reason="worse", sure="1"))
    assert "Rejected: 3." in page
    assert set(Feedback.objects.filter(status="rejected").values_list("rejection", flat=True)) == {"worse"}


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"action": "approve", "which": "ticked"}, "Tick what you want"),
        ({"action": "approve", "which": "ticked", "row": "x"}, "Tick what you want"),
        ({"action": "approve", "which": "all", "seen": "yesterday", "sure": "1"}, "Tick what you want"),
        ({"action": "reject", "which": "all", "sure": "1"}, "Say why they are rejected."),
    ],
)
def test_many_are_not_decided_on_by_a_form_that_lacks_something(
    client: Client, give: Give, fields: dict[str, str], told: str
) -> None:
    give("a cat")
    assert told in text(many(client, **fields))
    assert Feedback.objects.pending().count() == 1


def test_what_came_after_the_list_was_shown_is_left_out(client: Client, give: Give) -> None:
    give("a cat")
    seen = timezone.now().isoformat()
    give("a dog", number=1)
    fields = {"seen": seen, "action": "approve", "which": "all", "sure": "1"}
    assert "Approved: 1. 1 changed while you looked" in text(client.post("/review/many", fields, follow=True))


# --- The log ---


def test_the_log_names_rows_by_number_and_no_sentence(client: Client, give: Give) -> None:
    first, second = give("a secret cat"), give("another", number=1)
    decide(client, first, "edit", text="a secret tiger")
    decide(client, second, "reject", reason="private")
    client.post("/review/undo")
    page = text(client.get("/review/log"))
    assert [
        each
        for each in ("Taken back", "Rejected: It says things of people", "Approved", "Edited")
        if each not in page
    ] == []
    assert "secret" not in page
    only = text(client.get(f"/review/log?id={first.pk}"))
    assert "Rejected" not in only
    assert only.count('class="row"') == 2
