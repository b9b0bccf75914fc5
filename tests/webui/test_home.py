import re
from itertools import chain
from pathlib import Path

import pytest
from django.test import Client
from pytest_django import Settings

from captioner.celery import app
from captioner.exceptions import ClientGone, DeadlineExceeded, ModelUnavailable, Overloaded
from captioner.inference.types import DecodingParameters
from captioner.jobs import worker
from captioner.models import Caption, Job, JobPhoto
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


def test_several_photos_are_answered_at_once_on_the_page_of_their_job(
    client: Client, fake_engine: FakeEngine
) -> None:
    make = [jpeg("a.jpg", size=(64, 48)), jpeg("b.jpg", size=(40, 40)), jpeg("c.jpg", size=(30, 20))]
    response = upload(client, *make)
    job = Job.objects.get()
    assert (response.status_code, response.url) == (303, f"/jobs/{job.pk}")
    page = text(client.get(response.url))
    assert "Finished." in page
    cards = re.findall(r'class="card-caption" dir="auto">([^<]+)', page)
    assert cards == ["a 64 by 48 photo", "a 40 by 40 photo", "a 30 by 20 photo"], (
        "in the order they were chosen"
    )
    assert {caption.source for caption in Caption.objects.all()} == {Caption.Source.WEB}


def test_photos_that_failed_beside_good_ones_are_named_where_the_good_ones_are_shown(
    client: Client, fake_engine: FakeEngine
) -> None:
    response = upload(
        client, jpeg("a.jpg"), SimpleUploadedFile("notes.txt", b"text"), jpeg("b.jpg", colour="red")
    )
    page = text(client.get(response.url))
    assert "2 captioned, 1 failed" in page
    assert "notes.txt" in page
    assert "This is no photo this service can read." in page


@pytest.mark.django_db(transaction=True)
def test_what_a_slow_model_has_no_time_for_is_left_to_workers(
    client: Client, fake_engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some are answered, some refused by a full queue, some not begun: all are captioned in the end."""
    sent: list[list[int]] = []
    monkeypatch.setattr(app, "send_task", lambda _task, arguments, **_: sent.append(arguments[1]))
    monkeypatch.setattr(serving, "refresh", lambda **_: fake_engine)
    submit, photos = fake_engine.submit, []

    def slow(image, parameters, deadline):
        photos.append(image)
        if len(photos) > 3:
            raise Overloaded("The queue is full; try again in 3 seconds.", retry_after=2.4)
        return submit(image, parameters, deadline)

    monkeypatch.setattr(fake_engine, "submit", slow)
    monkeypatch.setattr(worker, "_BEGIN_SECONDS", 0.001)
    response = upload(client, *(jpeg(f"{number}.jpg", size=(40 + number, 40)) for number in range(20)))
    assert "3 captioned, 17 to go" in " ".join(text(client.get(response.url)).split())
    assert sorted(chain(*sent)) == list(range(3, 20))
    assert set(JobPhoto.objects.pending().values_list("attempts", "leased_until")) == {(0, None)}
    monkeypatch.setattr(fake_engine, "submit", submit)
    for indexes in sent:
        worker.job_photos_caption(Job.objects.get().pk, indexes)
    assert Caption.objects.count() == 20
    assert "20 captioned." in text(client.get(response.url))


@pytest.mark.parametrize(
    "error",
    [Overloaded("The queue is full.", retry_after=2.4), DeadlineExceeded("No caption within 20 seconds.")],
)
@pytest.mark.django_db(transaction=True)
def test_a_single_photo_that_has_to_wait_becomes_a_job(
    client: Client, fake_engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    sent: list[list[int]] = []
    monkeypatch.setattr(app, "send_task", lambda _task, arguments, **_: sent.append(arguments[1]))
    fake_engine.error = error
    response = upload(client, jpeg())
    assert response.url == f"/jobs/{Job.objects.get().pk}"
    assert "1 to go" in text(client.get(response.url))
    assert sent == [[0]]


@pytest.mark.django_db(transaction=True)
def test_several_photos_are_taken_while_the_model_loads(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loading() -> None:
        raise ModelUnavailable("The model is being loaded.")

    monkeypatch.setattr(app, "send_task", lambda *_, **__: None)
    monkeypatch.setattr(serving, "engine", loading)
    response = upload(client, jpeg("a.jpg"), jpeg("b.jpg"))
    assert "2 to go" in text(client.get(response.url))


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
    settings.JOB_MAX_PHOTOS = 2
    response = upload(client, jpeg(), jpeg(), jpeg())
    assert response.status_code == 413
    assert "These are 3 photos; at most 2 are taken at a time." in text(response)
    assert not fake_engine.submitted
    assert not Job.objects.exists()


@pytest.mark.parametrize("method", ["get", "post"])
def test_while_the_model_loads_a_page_says_so_and_looks_again_by_itself(
    client: Client, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    def loading() -> None:
        raise ModelUnavailable("The model is being loaded.")

    monkeypatch.setattr(serving, "engine", loading)
    response = client.get("/") if method == "get" else upload(client, jpeg())
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
