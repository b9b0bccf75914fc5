"""The worksheet and exports, as pages without JavaScript use them."""

import csv
import io
import json
import re
import uuid

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from captioner.captions.feedback import feedback_review, feedback_submit
from captioner.models import Caption, Feedback, FeedbackUse, Job, Owner
from models_registry.models import ModelVersion
from tests.conftest import FakeEngine
from tests.webui.pages import jpeg, make_captions, text, upload


@pytest.fixture
def client(client: Client, user: User) -> Client:
    client.force_login(user)
    return client


@pytest.fixture
def captions(fake_engine: FakeEngine, user: User) -> list[Caption]:
    return make_captions(Owner(user=user), 3)


def rows(page: str) -> list[str]:
    return re.findall(r'id="row-([^"]+)"', page)


def save(client: Client, row: Caption, **fields) -> Caption:
    response = client.post(f"/captions/{row.pk}/text", {"next": "/worksheet?only=unseen"} | fields)
    assert (response.status_code, response.url) == (303, f"/worksheet?only=unseen#row-{row.pk}")
    return Caption.objects.with_details().get(pk=row.pk)


def exported(client: Client, **fields) -> str:
    response = client.post("/captions/export", {"format": "csv"} | fields)
    assert response.status_code == 200
    assert response["Content-Disposition"].startswith("attachment")
    return b"".join(response.streaming_content).decode()


def test_each_photo_is_a_row_with_its_name_and_its_caption(client: Client, fake_engine: FakeEngine) -> None:
    address = upload(client, jpeg("one.jpg"), jpeg("two & more.jpg", size=(60, 40))).url
    job = f"job={Job.objects.get().pk}"
    page = text(client.get(f"/worksheet?{job}"))
    assert len(rows(page)) == 2
    assert page.index("one.jpg") < page.index("two &amp; more.jpg"), "as they were sent"
    assert ">\na 64 by 48 photo</textarea>" in page
    assert page.count("Not looked at</span>") == 2
    assert '<span class="doubt doubt-2">photo</span>' in page
    assert "The model doubts: photo." in page
    assert f'href="/worksheet?{job}"' in text(client.get(address))


def test_a_row_is_saved_for_its_owner_and_the_log_keeps_the_models(
    client: Client, captions: list[Caption]
) -> None:
    saved = save(client, captions[1], caption="  a wall\nin summer ")
    assert (saved.final_text, saved.text) == ("a wall in summer", "caption number 1")
    assert saved.looked_at is not None
    assert "In your words" in text(client.get("/worksheet"))


def test_a_candidate_is_taken_by_a_button(client: Client, fake_engine: FakeEngine) -> None:
    upload(client, jpeg())
    caption = Caption.objects.get()
    assert 'name="use" value="1"' in text(client.get("/worksheet"))
    saved = save(client, caption, caption="typed and not meant", use="1")
    assert saved.final_text == "a 64 by 48 photo number 2"
    assert saved.feedback.pick.preferred == "a 64 by 48 photo number 2"


def test_what_is_left_as_it_was_is_looked_at_and_nothing_more(
    client: Client, captions: list[Caption]
) -> None:
    save(client, captions[0], caption=captions[0].text)
    assert not Feedback.objects.exists()
    assert rows(text(client.get("/worksheet?only=unseen"))) == [str(c.pk) for c in (captions[2], captions[1])]


def test_an_emptied_row_is_the_answer_again_and_keeps_its_rating(
    client: Client, captions: list[Caption]
) -> None:
    feedback_submit(captions[0], rating=4, ideal_caption="a wall")
    assert save(client, captions[0], caption="").final_text == captions[0].text
    assert Feedback.objects.get().rating == 4
    save(client, captions[1], caption="a wall")
    assert save(client, captions[1], caption=captions[1].text).final_source == "model"
    assert Feedback.objects.count() == 1


def test_a_spelling_that_becomes_a_correction_leaves_no_best_rating_behind(
    client: Client, captions: list[Caption]
) -> None:
    assert save(client, captions[0], caption="A 64 by 48 photo!").final_text == "A 64 by 48 photo!"
    assert Feedback.objects.get().rating == 10
    save(client, captions[0], caption="a teal wall")
    assert (Feedback.objects.get().rating, Feedback.objects.get().ideal_caption) == (None, "a teal wall")


@pytest.mark.parametrize(
    "fields", [{"caption": "x" * 1501}, {"caption": "a\0b"}, {"use": "x"}, {"use": "-1"}]
)
def test_what_cannot_be_saved_is_told_with_what_was_typed(
    client: Client, captions: list[Caption], fields: dict[str, str]
) -> None:
    response = client.post(f"/captions/{captions[0].pk}/text", fields)
    assert response.status_code == 400
    assert "This caption was not saved." in text(response)
    assert not Feedback.objects.exists()


@pytest.mark.parametrize("back", ["https://evil.example/", "//evil.example", "javascript:alert(1)", ""])
def test_saving_leads_nowhere_else(client: Client, captions: list[Caption], back: str) -> None:
    response = client.post(f"/captions/{captions[0].pk}/text", {"caption": "a", "next": back})
    assert response.url == f"/worksheet#row-{captions[0].pk}"


def test_others_rows_are_not_found(client: Client, captions: list[Caption], other_user: User) -> None:
    client.force_login(other_user)
    assert rows(text(client.get("/worksheet"))) == []
    response = client.post(f"/captions/{captions[0].pk}/text", {"caption": "mine"})
    assert response.status_code == 404
    assert client.post(f"/captions/{uuid.uuid4()}/text", {"caption": "mine"}).status_code == 404
    assert exported(client, id=[str(captions[0].pk)]).count("\n") == 1, "nothing but the header"


# --- Exports ---


def test_the_history_a_search_and_a_selection_are_taken_along_as_corrected(
    client: Client, captions: list[Caption]
) -> None:
    feedback_submit(captions[2], ideal_caption="=my wall")
    table = [*csv.DictReader(io.StringIO(exported(client), newline=""))]
    assert [row["caption"] for row in table] == ["'=my wall", "caption number 1", "a 64 by 48 photo"]
    assert table[0]["machine_caption"] == "caption number 2"
    assert json.loads(exported(client, format="json", q="wall"))[0]["caption"] == "=my wall"
    assert len(json.loads(exported(client, format="json", only="corrected"))) == 1
    chosen = json.loads(exported(client, format="json", id=[str(captions[0].pk)]))
    assert [row["caption_id"] for row in chosen] == [str(captions[0].pk)]
    assert exported(client, bom="on").startswith("\ufeff")


@pytest.mark.parametrize("fields", [{"format": "xml"}, {"since": "no day"}, {"only": "x"}])
def test_an_export_there_is_not_is_told(client: Client, captions: list[Caption], fields: dict) -> None:
    response = client.post("/captions/export", {"format": "csv"} | fields, follow=True)
    assert "Nothing was exported." in text(response)


def test_a_selection_that_is_damaged_is_not_found(client: Client) -> None:
    assert client.post("/captions/export", {"format": "csv", "id": "x"}).status_code == 404


# --- Decorative ---


def test_a_photo_that_tells_nothing_takes_an_empty_alt_text(client: Client, captions: list[Caption]) -> None:
    address = f"/captions/{captions[0].pk}"
    assert 'data-copy="&lt;img src=' in text(client.get(address))
    client.post(f"{address}/decorative", {"decorative": "yes"})
    page = text(client.get(address))
    assert "alt=&quot;&quot;&gt;" in page
    assert 'alt="a 64 by 48 photo"' in page, "here it is the photo itself"
    client.post(f"{address}/decorative", {"decorative": "no"})
    assert not Caption.objects.get(pk=captions[0].pk).is_decorative


# --- What became of what people said ---


@pytest.mark.parametrize(
    ("role", "reason", "told"),
    [
        ("taught", "", "Learned in version 2"),
        ("chose", "", "Chose how much version 2 keeps of what it learned, and did not teach it"),
        ("tests", "", "Kept aside: it tests version 2 and never teaches one"),
        (
            "left_out",
            "photo_cap",
            "Left out of version 2: enough was said of photos that look like this one",
        ),
    ],
)
def test_the_worksheet_and_the_history_say_what_a_version_made_of_a_correction(
    client: Client, captions: list[Caption], reviewer: User, role: str, reason: str, told: str
) -> None:
    first = ModelVersion.objects.create(id="fake-1", model_name="m", manifest={})
    version = ModelVersion.objects.create(id="fake-2", model_name="m", manifest={})
    said, _ = feedback_submit(captions[0], ideal_caption="my wall")
    feedback_review(Feedback.objects.all(), Feedback.Status.APPROVED, reviewer=reviewer)
    for each, use in ((first, "left_out"), (version, role)):
        FeedbackUse.objects.create(feedback=said, version=each, role=use, reason=reason)
    Feedback.objects.update(now_says="a blue wall", now_says_version="fake-2")
    for address in ("/worksheet", "/captions/", f"/captions/{captions[0].pk}"):
        page = text(client.get(address))
        assert told in page, address
        assert "version 1" not in page
    assert 'It says now: <q dir="auto">a blue wall</q>' in text(client.get("/worksheet"))
    page = text(client.get(f"/captions/{captions[0].pk}"))
    assert 'Version 1 said: <q dir="auto">a 64 by 48 photo</q>' in page
    assert 'Version 2 says now: <q dir="auto">a blue wall</q>' in page
    assert ("Thank you" in page) == (role == "taught")


def test_a_row_that_was_not_approved_says_why(
    client: Client, captions: list[Caption], reviewer: User
) -> None:
    feedback_submit(captions[0], ideal_caption="my wall")
    assert "Waiting for review" in text(client.get("/worksheet"))
    assert "Waiting for review" not in text(client.get("/captions/"))
    feedback_review(Feedback.objects.all(), Feedback.Status.REJECTED, reviewer=reviewer, rejection="worse")
    why = "Left out: a reviewer did not approve it. It says less than the caption that was there"
    for address in ("/worksheet", "/captions/"):
        assert why in text(client.get(address))


def test_outcomes_take_as_many_queries_for_many_rows_as_for_few(
    client: Client, captions: list[Caption], reviewer: User, django_assert_max_num_queries
) -> None:
    version = ModelVersion.objects.create(id="fake-1", model_name="m", manifest={})
    for caption in captions:
        said, _ = feedback_submit(caption, ideal_caption="my wall")
        FeedbackUse.objects.create(feedback=said, version=version, role="taught")
    Feedback.objects.update(status="approved", reviewed_at=timezone.now())
    with django_assert_max_num_queries(7):  # session, user, rights, captions, uses, versions
        assert text(client.get("/captions/")).count("Learned in version 1") == 3
