import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from django.test import Client
from pytest_django import Settings

from captioner.exceptions import ClientGone, DeadlineExceeded, ModelUnavailable, Overloaded
from captioner.inference.types import DecodingParameters
from captioner.models import Caption
from captioner.serving.process import serving
from tests.conftest import FakeEngine, draw_jpeg
from tests.webui.pages import SimpleUploadedFile, jpeg, text, upload
from webui.home import SAMPLES

pytestmark = pytest.mark.django_db


def test_the_form_is_plain_html_that_posts_files_to_the_start_page(
    client: Client, fake_engine: FakeEngine
) -> None:
    page = text(client.get("/"))
    assert '<form class="upload" method="post" action="/" enctype="multipart/form-data"' in page
    assert 'type="file" id="image" name="image" multiple required' in page
    assert "<script>" not in page
    assert " style=" not in page


def test_one_photo_leads_to_its_result_page(client: Client, fake_engine: FakeEngine) -> None:
    response = upload(client, jpeg())
    caption = Caption.objects.get()
    assert (response.status_code, response.url) == (303, f"/captions/{caption.pk}")
    assert caption.source == Caption.Source.WEB
    assert "a 64 by 48 photo" in text(client.get(response.url)).replace("</span>", "")


def test_the_page_asks_for_alternatives_with_as_many_beams_as_they_need(
    client: Client, fake_engine: FakeEngine
) -> None:
    upload(client, jpeg())
    fake_engine.default_parameters = DecodingParameters(num_beams=5, max_new_tokens=12)
    upload(client, jpeg())
    assert fake_engine.submitted == [
        DecodingParameters(num_captions=3, num_beams=3),
        DecodingParameters(num_captions=3, num_beams=5, max_new_tokens=12),
    ]


def test_several_photos_lead_to_a_page_that_shows_them(client: Client, fake_engine: FakeEngine) -> None:
    make = [jpeg("a.jpg", size=(64, 48)), jpeg("b.jpg", size=(40, 40)), jpeg("c.jpg", size=(30, 20))]
    response = upload(client, *make)
    assert response.status_code == 303
    new = parse_qs(urlsplit(response.url).query)["new"][0].split(",")
    assert new == [str(caption.pk) for caption in Caption.objects.order_by("created_at")]
    page = text(client.get(response.url))
    assert "3 new captions" in page
    assert page.count('class="card"') == 3


def test_photos_that_failed_beside_good_ones_are_named_where_the_good_ones_are_shown(
    client: Client, fake_engine: FakeEngine
) -> None:
    response = upload(
        client, jpeg("a.jpg"), SimpleUploadedFile("notes.txt", b"text"), jpeg("b.jpg", colour="red")
    )
    page = text(client.get(response.url))
    assert "2 new captions" in page
    assert "notes.txt: " in page
    assert "notes.txt" not in text(client.get("/captions/"))


def test_one_good_photo_among_broken_ones_leads_to_its_result_page(
    client: Client, fake_engine: FakeEngine
) -> None:
    response = upload(client, SimpleUploadedFile("notes.txt", b"text"), jpeg())
    assert response.url == f"/captions/{Caption.objects.get().pk}"
    assert "notes.txt: " in text(client.get(response.url))


@pytest.mark.parametrize(
    ("data", "status"),
    [(b"just text", 415), (draw_jpeg()[:200], 422), (b"\xff\xd8" + b"\0" * 16 * 2**20, 413)],
    ids=["text", "truncated", "too large"],
)
def test_a_photo_that_is_none_is_refused_on_the_form_with_the_reason(
    client: Client, fake_engine: FakeEngine, data: bytes, status: int
) -> None:
    response = upload(client, SimpleUploadedFile("broken.jpg", data))
    assert response.status_code == status
    assert "broken.jpg: " in text(response)
    assert 'enctype="multipart/form-data"' in text(response)
    assert not Caption.objects.exists()


def test_file_names_are_escaped(client: Client, fake_engine: FakeEngine) -> None:
    page = text(upload(client, SimpleUploadedFile("<b>.jpg", b"no photo")))
    assert "&lt;b&gt;.jpg: " in page
    assert "<b>" not in page


@pytest.mark.parametrize(
    "fields", [{}, {"image": ""}, {"image": "text instead of a file"}, {"other": jpeg()}]
)
def test_sending_no_photo_asks_for_one(client: Client, fake_engine: FakeEngine, fields: dict) -> None:
    response = client.post("/", fields)
    assert response.status_code == 400
    assert "Choose at least one photo first." in text(response)


def test_too_many_photos_are_refused_together(
    client: Client, fake_engine: FakeEngine, settings: Settings
) -> None:
    settings.UPLOAD_MAX_PHOTOS = 2
    response = upload(client, jpeg(), jpeg(), jpeg())
    assert response.status_code == 400
    assert "You sent 3 photos; at most 2" in text(response)
    assert not fake_engine.submitted


def test_an_overloaded_service_says_so_and_when_to_come_back(client: Client, fake_engine: FakeEngine) -> None:
    fake_engine.error = Overloaded("The queue is full; try again in 3 seconds.", retry_after=2.4)
    response = upload(client, jpeg())
    assert (response.status_code, response["Retry-After"]) == (429, "3")
    assert "Captioner is busy right now." in text(response)
    assert "The queue is full" in text(response)


def test_a_missed_deadline_is_told_on_the_form(client: Client, fake_engine: FakeEngine) -> None:
    fake_engine.error = DeadlineExceeded("No caption within 20 seconds; please try again.")
    response = upload(client, jpeg())
    assert response.status_code == 504
    assert "No caption within 20 seconds" in text(response)


@pytest.mark.parametrize("method", ["get", "post"])
def test_while_the_model_loads_a_page_says_so_and_looks_again_by_itself(
    client: Client, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    def loading() -> None:
        raise ModelUnavailable("The model is being loaded.")

    monkeypatch.setattr(serving, "engine", loading)
    response = getattr(client, method)("/")
    assert (response.status_code, response["Retry-After"]) == (503, "5")
    assert "The model is being loaded." in text(response)
    assert '<meta http-equiv="refresh" content="5; url=/">' in text(response)
    assert ("choose them again" in text(response)) == (method == "post")


def test_a_model_that_goes_away_while_the_photo_is_read_shows_the_same_page(
    client: Client, fake_engine: FakeEngine
) -> None:
    fake_engine.error = ModelUnavailable("This process is shutting down.")
    response = upload(client, jpeg())
    assert response.status_code == 503
    assert "This process is shutting down." in text(response)


def test_a_client_that_left_is_no_server_error(client: Client, fake_engine: FakeEngine) -> None:
    fake_engine.error = ClientGone("gone")
    assert upload(client, jpeg()).status_code == 400


def test_posting_needs_the_csrf_token(fake_engine: FakeEngine) -> None:
    client = Client(enforce_csrf_checks=True)
    response = upload(client, jpeg())
    assert response.status_code == 403
    assert "This form has expired." in text(response)
    client.get("/")
    token = client.cookies["csrftoken"].value
    assert client.post("/", {"image": jpeg(), "csrfmiddlewaretoken": token}).status_code == 303


def test_where_anonymous_use_is_off_every_page_leads_to_sign_in(
    client: Client, fake_engine: FakeEngine, settings: Settings, caption: Caption
) -> None:
    settings.ALLOW_ANONYMOUS = False
    for path in ("/", "/captions/", f"/captions/{caption.pk}", f"/captions/{caption.pk}/delete"):
        response = client.get(path)
        assert (response.status_code, response.url) == (302, f"/login?next={path}")
    assert upload(client, jpeg()).url == "/login?next=/"
    client.force_login(caption.user)
    assert client.get("/").status_code == 200


def test_the_latest_captions_are_shown_below_the_form(client: Client, fake_engine: FakeEngine) -> None:
    assert "Your latest" not in text(client.get("/"))
    upload(client, jpeg())
    assert "Your latest" in text(client.get("/"))


def test_other_methods_are_refused(client: Client, fake_engine: FakeEngine) -> None:
    assert client.put("/").status_code == 405
    assert client.head("/").status_code == 200


def test_who_has_no_photo_at_hand_tries_a_sample(client: Client, fake_engine: FakeEngine) -> None:
    page = text(client.get("/"))
    names = re.findall(r'name="sample" value="(\w+)"', page)
    assert len(names) == 4
    for name in names:
        assert client.post("/", {"sample": name}).url.startswith("/captions/")
    assert client.post("/", {"sample": "../secret_key"}).status_code == 400
    assert 'name="sample"' not in text(client.get("/")), "they are for a first visit"
    told = Path("static/samples/CREDITS.md").read_text(encoding="utf-8")
    for name, _, credit in SAMPLES:
        assert f"`{name}.webp`" in told
        assert credit.split(" by ")[0] in told
