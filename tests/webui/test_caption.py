import re
import uuid
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.core.files.storage import default_storage
from django.test import Client
from django.utils import timezone

from captioner.captions.captions import DISCARDED_FOR, captions_sweep
from captioner.captions.feedback import feedback_review, feedback_submit
from captioner.exceptions import Overloaded
from captioner.models import Caption, Feedback, Photo, Preference
from tests.conftest import FakeEngine
from tests.webui.pages import jpeg, make_captions, text, upload


@pytest.fixture
def client(client: Client, user: User) -> Client:
    client.force_login(user)
    return client


def page_of(client: Client, caption: Caption, query: str = "") -> str:
    response = client.get(f"/captions/{caption.pk}{query}")
    assert response.status_code == 200
    return text(response)


def feedback(client: Client, caption: Caption, **fields) -> str:
    """Send the form and return the page it leads to."""
    response = client.post(f"/captions/{caption.pk}", fields)
    assert (response.status_code, response.url) == (303, f"/captions/{caption.pk}#feedback")
    return page_of(client, caption)


# --- The result ---


def test_the_photo_has_its_size_and_the_caption_as_its_text(client: Client, caption: Caption) -> None:
    expected = (
        f'<img src="/api/v1/captions/{caption.pk}/photo" alt="a 64 by 48 photo" width="64" height="48">'
    )
    assert expected in page_of(client, caption)
    photo = client.get(f"/api/v1/captions/{caption.pk}/photo")
    assert (photo.status_code, photo["Content-Type"]) == (200, "image/jpeg")


def test_doubtful_words_are_marked_by_class_percentage_and_words(client: Client, caption: Caption) -> None:
    """In the heading by shape alone, so that it reads as one sentence; the list below says how sure in words."""
    page = page_of(client, caption)
    marked = '<span class="doubt doubt-2" title="40 % sure">photo</span>'
    assert f'<h1 class="caption" dir="auto">a {marked}</h1>' in page
    assert '<span class="word-percent">90&nbsp;%<span class="visually-hidden">, sure</span></span>' in page
    assert '<span class="word-percent">40&nbsp;%<span class="visually-hidden">, unsure</span></span>' in page


def test_a_caption_without_words_is_shown_as_it_is(client: Client, caption: Caption) -> None:
    Caption.objects.filter(pk=caption.pk).update(words=[], text="plain & simple")
    page = page_of(client, caption)
    assert '<h1 class="caption" dir="auto">plain &amp; simple</h1>' in page
    assert "How sure was the model?" not in page


@pytest.fixture
def remembered(caption: Caption, reviewer: User) -> Caption:
    """The same photo again, answered with what was approved of the first."""
    said, _ = feedback_submit(caption, ideal_caption="my garden wall")
    feedback_review(Feedback.objects.all(), Feedback.Status.APPROVED, reviewer=reviewer)
    again = Caption.objects.get(pk=caption.pk)
    again.pk, again.text, again.origin, again.recalled = uuid.uuid4(), "a blue wall", "memory", said
    again.save(force_insert=True)
    return again


def test_what_is_remembered_is_the_caption_with_the_models_own_beside_it(
    client: Client, caption: Caption, remembered: Caption
) -> None:
    page = page_of(client, remembered)
    assert '<h1 class="caption" dir="auto">my garden wall</h1>' in page
    assert 'alt="my garden wall"' in page
    assert 'data-copy="my garden wall"' in page
    assert f'From memory of <a href="/captions/{caption.pk}">this same photo</a>' in page
    assert '<q dir="auto">a blue wall</q>' in page
    assert "How sure was the model?" not in page
    assert "a blue wall</textarea>" in page_of(client, remembered, "?use=model")
    assert "my garden wall</textarea>" in page_of(client, remembered, "?use=0")
    assert "my garden wall" in text(client.get("/captions/"))


def test_what_somebody_else_taught_leads_to_no_page_of_theirs(
    client: Client, caption: Caption, remembered: Caption, other_user: User
) -> None:
    Caption.objects.filter(pk=caption.pk).update(user=other_user)
    page = page_of(client, remembered)
    assert "From memory of this same photo" in page
    assert str(caption.pk) not in page


def test_it_is_said_where_photos_like_it_spoke_for_a_caption(client: Client, caption: Caption) -> None:
    assert "what people said of photos like it" not in page_of(client, caption)
    Caption.objects.filter(pk=caption.pk).update(beam_rank=1)
    assert "what people said of photos like it" in page_of(client, caption)


def test_alternatives_and_the_model_version_are_shown(
    client: Client, fake_engine: FakeEngine, user: User
) -> None:
    page = text(client.get(upload(client, jpeg()).url))
    assert "a 64 by 48 photo number 1" in page
    assert "a 64 by 48 photo number 2" in page
    assert "<code>fake-1</code>" in page


def test_a_calibrated_confidence_is_shown_and_none_is_made_up(client: Client, caption: Caption) -> None:
    assert "model was this sure of" not in page_of(client, caption)
    Caption.objects.filter(pk=caption.pk).update(confidence=0.347)
    assert "about <strong>35&nbsp;%</strong> of the captions" in page_of(client, caption)


def test_without_javascript_an_alternative_can_be_taken_as_ones_own(
    client: Client, fake_engine: FakeEngine
) -> None:
    upload(client, jpeg())
    caption = Caption.objects.get()
    assert ">\na 64 by 48 photo</textarea>" in page_of(client, caption, "?use=0")
    assert ">\na 64 by 48 photo number 2</textarea>" in page_of(client, caption, "?use=2")


@pytest.mark.parametrize("use", ["3", "-1", "x", "", "1e9", "²", "9" * 5000])
def test_a_caption_that_is_none_of_them_fills_in_nothing(client: Client, caption: Caption, use: str) -> None:
    assert ">\n</textarea>" in page_of(client, caption, f"?use={use}")


def test_what_the_model_wrote_is_escaped(client: Client, caption: Caption) -> None:
    nasty = "<script>alert(1)</script>"
    Caption.objects.filter(pk=caption.pk).update(
        text=nasty,
        words=[{"text": nasty, "probability": 0.1}],
        alternatives=[{"caption": nasty, "confidence": None}],
    )
    assert nasty not in page_of(client, caption)


# --- The corrected caption is the caption ---


def test_ones_own_words_are_the_caption_everywhere_and_the_models_a_footnote(
    client: Client, caption: Caption
) -> None:
    feedback_submit(caption, ideal_caption="my <garden> wall")
    page = page_of(client, caption)
    own = "my &lt;garden&gt; wall"
    assert f'<h1 class="caption" dir="auto">{own}</h1>' in page
    for place in (f"<title>{own} ", f'alt="{own}"', f'data-copy="{own}"', f">\n{own}</textarea>"):
        assert place in page
    assert 'The model wrote: <q dir="auto">a 64 by 48 photo</q>' in page
    assert "How sure was the model?" not in page
    assert f'<span class="card-caption" dir="auto">{own}</span>' in text(client.get("/captions/"))
    assert own in text(client.get(f"/captions/{caption.pk}/delete"))
    page = page_of(client, caption, "?use=model")
    assert ">\na 64 by 48 photo</textarea>" in page


def test_ones_own_spelling_is_the_caption_too(client: Client, caption: Caption) -> None:
    feedback_submit(caption, ideal_caption="A 64 by 48 photo.")
    page = page_of(client, caption)
    assert '<h1 class="caption" dir="auto">A 64 by 48 photo.</h1>' in page
    assert ">\nA 64 by 48 photo.</textarea>" in page


def test_who_opens_its_page_has_looked_at_it(client: Client, caption: Caption) -> None:
    assert str(caption.pk) in text(client.get("/captions/?only=unseen"))
    page_of(client, caption)
    assert str(caption.pk) not in text(client.get("/captions/?only=unseen"))


# --- Feedback ---


def test_feedback_is_saved_said_to_be_and_shown_again(client: Client, caption: Caption) -> None:
    page = feedback(client, caption, rating="7", ideal_caption="a teal rectangle")
    saved = Feedback.objects.get()
    assert (saved.rating, saved.ideal_caption, saved.status) == (7, "a teal rectangle", "pending")
    assert 'role="status" data-feedback-status>Saved. Thank you!</p>' in page
    assert 'value="7" id="id_rating_6" checked' in page
    assert ">\na teal rectangle</textarea>" in page
    assert "Waiting for review" in page
    assert "Saved." not in page_of(client, caption)


def test_feedback_can_be_changed(client: Client, caption: Caption) -> None:
    feedback(client, caption, rating="7")
    page = feedback(client, caption, rating="2", ideal_caption="a rectangle")
    assert (Feedback.objects.get().rating, Feedback.objects.count()) == (2, 1)
    assert 'value="2" id="id_rating_1" checked' in page


def test_a_rating_or_a_caption_alone_is_enough(client: Client, caption: Caption) -> None:
    feedback(client, caption, rating="10")
    feedback(client, caption, ideal_caption="just words")
    assert (Feedback.objects.get().rating, Feedback.objects.get().ideal_caption) == (None, "just words")


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, "Give a rating from 1 to 10, a better caption, or both."),
        ({"ideal_caption": "   "}, "Give a rating from 1 to 10, a better caption, or both."),
        ({"rating": "11"}, "The rating is a whole number from 1 to 10."),
        ({"rating": "good"}, "The rating is a whole number from 1 to 10."),
        ({"ideal_caption": "x" * 1501}, "at most 1500 are allowed"),
        ({"ideal_caption": "a\0b"}, "Null characters are not allowed."),
    ],
)
def test_feedback_that_cannot_be_saved_is_refused_on_the_page(
    client: Client, caption: Caption, fields: dict[str, str], told: str
) -> None:
    response = client.post(f"/captions/{caption.pk}", fields)
    assert response.status_code == 400
    assert told in text(response)
    assert not Feedback.objects.exists()


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (Feedback.Status.APPROVED, "Approved. Ratings order the review queue"),
        (Feedback.Status.REJECTED, "Left out: a reviewer did not approve it"),
    ],
)
def test_the_outcome_of_a_review_is_shown(
    client: Client, caption: Caption, reviewer: User, status: Feedback.Status, told: str
) -> None:
    feedback_submit(caption, rating=3)
    feedback_review(Feedback.objects.all(), status, reviewer=reviewer)
    assert told in page_of(client, caption)


def test_feedback_needs_the_csrf_token(caption: Caption, user: User) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(user)
    assert client.post(f"/captions/{caption.pk}", {"rating": "3"}).status_code == 403
    assert not Feedback.objects.exists()


# --- Deleting ---


def test_deleting_asks_first(client: Client, caption: Caption) -> None:
    page = text(client.get(f"/captions/{caption.pk}/delete"))
    assert "Delete this caption?" in page
    assert Caption.objects.exists()


def test_deleting_says_that_a_photo_stays_which_another_caption_shows(
    client: Client, caption: Caption
) -> None:
    assert "and the photo are deleted" in text(client.get(f"/captions/{caption.pk}/delete"))
    Caption.objects.create(user=caption.user, photo=caption.photo, source=Caption.Source.WEB, text="another")
    assert "The photo stays" in text(client.get(f"/captions/{caption.pk}/delete"))


def test_a_deletion_can_be_undone_and_is_for_good_after_some_minutes(
    client: Client, caption: Caption
) -> None:
    feedback(client, caption, rating="7")
    response = client.post(f"/captions/{caption.pk}/delete")
    assert response.status_code == 303
    assert client.get(f"/captions/{caption.pk}").status_code == 404
    assert client.get(f"/api/v1/captions/{caption.pk}/photo").status_code == 404
    page = text(client.get(response.url))
    assert "1 caption deleted." in page
    [moment] = re.findall(r'name="deleted" value="([^"]+)"', page)
    client.post("/captions/take-back", {"deleted": moment})
    assert "a 64 by 48 photo" in page_of(client, caption)
    assert Feedback.objects.get().rating == 7

    client.post(f"/captions/{caption.pk}/delete")
    assert client.post(f"/captions/{caption.pk}/delete").status_code == 404
    assert captions_sweep() == 0
    Caption.objects.update(deleted_at=timezone.now() - DISCARDED_FOR - timedelta(seconds=1))
    assert captions_sweep() == 1
    for model in (Caption, Feedback, Photo):
        assert not model.objects.exists()
    assert not default_storage.exists(caption.photo.file.name)


# --- Only one's own ---


@pytest.mark.parametrize("path", ["/captions/{}", "/captions/{}/delete", "/api/v1/captions/{}/photo"])
def test_another_user_and_a_visitor_find_nothing(caption: Caption, other_user: User, path: str) -> None:
    stranger, visitor = Client(), Client()
    stranger.force_login(other_user)
    for client in (stranger, visitor):
        assert client.get(path.format(caption.pk)).status_code == 404
        assert client.post(path.format(caption.pk), {"rating": "1"}).status_code in {404, 405}
    assert Caption.objects.filter(feedback=None).count() == 1


def test_visitors_see_their_own_captions_only(fake_engine: FakeEngine, db: None) -> None:
    one, two = Client(), Client()
    path = upload(one, jpeg()).url
    assert one.get(path).status_code == 200
    assert two.get(path).status_code == 404


def test_an_unknown_caption_is_not_found(client: Client) -> None:
    response = client.get(f"/captions/{uuid.uuid4()}")
    assert response.status_code == 404
    assert "There is nothing here for you." in text(response)


# --- Other words at a place, and the whole caption written again ---


def test_other_words_for_a_doubtful_one_are_offered_with_their_rest(client: Client, caption: Caption) -> None:
    assert 'name="word" value="1"' in page_of(client, caption)
    page = text(client.post(f"/captions/{caption.pk}/next-words", {"word": "1"}))
    assert "Instead of “photo” the model would write" in page
    assert 'name="caption" value="a hill of grass"' in page
    assert '<h1 class="caption"' in page
    part = client.post(
        f"/captions/{caption.pk}/next-words", {"word": "1"}, headers={"X-Requested-With": "fetch"}
    )
    assert text(part).startswith('<div class="choices"')
    answer = client.post(
        f"/captions/{caption.pk}/text", {"caption": "a hill of grass", "next": f"/captions/{caption.pk}"}
    )
    assert answer.url == f"/captions/{caption.pk}"
    assert '<h1 class="caption" dir="auto">a hill of grass</h1>' in page_of(client, caption)


@pytest.mark.parametrize("place", ["2", "-1", "x", "", "9" * 50, "1.5"])
def test_a_word_that_is_not_there_is_not_found(client: Client, caption: Caption, place: str) -> None:
    assert client.post(f"/captions/{caption.pk}/next-words", {"word": place}).status_code == 404


def test_why_there_are_no_other_words_is_said_in_their_place(
    client: Client, caption: Caption, fake_engine: FakeEngine
) -> None:
    fake_engine.error = Overloaded("Captions are wanted faster than they can be made.", retry_after=1)
    response = client.post(f"/captions/{caption.pk}/next-words", {"word": "1"})
    assert response.status_code == 503
    assert '<p class="errorlist">Captions are wanted faster' in text(response)
    fake_engine.error = None
    default_storage.delete(caption.photo.file.name)
    response = client.post(f"/captions/{caption.pk}/next-words", {"word": "1"})
    assert "The photo of this caption is lost." in text(response)


def said_again(page: str) -> str:
    [signed] = re.findall(r'name="said" value="([^"]+)"', page)
    return signed


def test_what_it_says_now_stands_beside_what_it_said_and_one_is_taken(
    client: Client, caption: Caption
) -> None:
    Caption.objects.update(text="a green wall", words=[], model_version="fake-0")
    page = text(client.post(f"/captions/{caption.pk}/again"))
    assert ">fake-0 said</h3>" in page
    assert ">fake-1 says now</h3>" in page
    for sentence in ("a green wall", "a 64 by 48 photo"):
        assert f'<p class="pair-text" dir="auto">{sentence}</p>' in page
    response = client.post(f"/captions/{caption.pk}/pick", {"said": said_again(page), "take": "now"})
    assert (response.status_code, response.url) == (303, f"/captions/{caption.pk}")
    assert '<h1 class="caption" dir="auto">a 64 by 48 photo</h1>' in page_of(client, caption)
    assert Preference.objects.get().preferred == "a 64 by 48 photo"


def test_a_pick_of_something_else_is_refused(client: Client, caption: Caption, user: User) -> None:
    Caption.objects.update(text="a green wall", words=[])
    signed = said_again(text(client.post(f"/captions/{caption.pk}/again")))
    [_, other] = make_captions(caption.owner, 2)
    for pk, said in ((other.pk, signed), (caption.pk, signed[:-1]), (caption.pk, "")):
        client.post(f"/captions/{pk}/pick", {"said": said, "take": "now"})
        assert "That was too long ago." in page_of(client, Caption.objects.get(pk=pk))
    assert not Preference.objects.exists()


def test_that_it_says_the_same_is_no_choice(client: Client, caption: Caption) -> None:
    page = text(client.post(f"/captions/{caption.pk}/again"))
    assert "fake-1 says the same" in page
    assert 'name="said"' not in page


def test_asking_again_keeps_what_is_said_now_beside_feedback(client: Client, caption: Caption) -> None:
    feedback_submit(caption, ideal_caption="my wall")
    client.post(f"/captions/{caption.pk}/again")
    assert Feedback.objects.get().now_says == "a 64 by 48 photo"
    assert 'fake-1 says now: <q dir="auto">a 64 by 48 photo</q>' in page_of(client, caption)


def test_a_model_that_cannot_answer_says_so(
    client: Client, caption: Caption, fake_engine: FakeEngine
) -> None:
    fake_engine.error = Overloaded("Captions are wanted faster than they can be made.", retry_after=1)
    response = client.post(f"/captions/{caption.pk}/again")
    assert response.status_code == 303
    assert "Captions are wanted faster" in page_of(client, caption)
