"""What the form's script sends: a photo a request."""

import io
import zipfile

import pytest
from django.contrib.auth.models import User
from django.core.files.storage import storages
from django.core.files.uploadedfile import SimpleUploadedFile
from django.http import HttpResponse
from django.test import Client

from captioner.celery import app
from captioner.exceptions import Overloaded
from captioner.jobs.sweeps import uploads_sweep
from captioner.models import Caption, Job, JobPhoto
from tests.conftest import FakeEngine, draw_jpeg
from tests.webui.pages import jpeg, text

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _no_broker(fake_engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "send_task", lambda *_, **__: None)


@pytest.fixture
def address(client: Client) -> str:
    response = client.post("/uploads")
    assert response.status_code == 201
    return response.json()["job"]


def send(client: Client, address: str, place: int, file: SimpleUploadedFile) -> HttpResponse:
    return client.post(f"{address}/{place}", {"image": file})


def done(client: Client, address: str, *places: int) -> HttpResponse:
    return client.post(address, {"places": ",".join(map(str, places))})


def zipped(*names: str) -> SimpleUploadedFile:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for number, name in enumerate(names):
            archive.writestr(name, draw_jpeg((40 + number, 40)))
    return SimpleUploadedFile("many.zip", file.getvalue())


def test_photos_come_one_by_one_and_keep_the_order_they_were_chosen_in(client: Client, address: str) -> None:
    assert send(client, address, 2, jpeg("last.jpg")).json() == {"photos": 1}
    assert send(client, address, 1, zipped("b.jpg", "a.jpg")).json() == {"photos": 2}
    assert send(client, address, 0, jpeg("first.jpg")).json() == {"photos": 1}
    assert address.rsplit("/", 1)[-1] not in text(client.get("/jobs/")), "not before all have come"
    page = done(client, address, 0, 1, 2).json()["page"]
    rows = list(JobPhoto.objects.values_list("index", "name", "state"))
    names = ["first.jpg", "b.jpg", "a.jpg", "last.jpg"]
    assert rows == [(index, name, "captioned") for index, name in enumerate(names)]
    job = Job.objects.get()
    assert (page, job.photo_count, job.status) == (f"/jobs/{job.pk}", 4, "finished")
    assert "4 captioned." in text(client.get(page))
    assert done(client, address, 0).status_code == 404, "it is over"


def test_what_is_sent_again_replaces_what_came_and_what_was_taken_out_is_not_captioned(
    client: Client, address: str
) -> None:
    for place, name in enumerate(["a.jpg", "b.jpg", "c.jpg"]):
        send(client, address, place, jpeg(name))
    send(client, address, 1, jpeg("b.jpg", size=(90, 60)))
    done(client, address, 1, 2)
    assert [(row.index, row.name) for row in JobPhoto.objects.all()] == [(0, "b.jpg"), (1, "c.jpg")]
    assert Caption.objects.filter(text="a 90 by 60 photo").count() == 1
    uploads_sweep()
    assert storages["uploads"].listdir("")[0] == []


def test_a_single_photo_leads_to_its_caption_and_leaves_no_job(client: Client, address: str) -> None:
    send(client, address, 0, jpeg())
    page = done(client, address, 0).json()["page"]
    assert page == f"/captions/{Caption.objects.get().pk}"
    assert not Job.objects.exists()


def test_a_single_photo_that_has_to_wait_is_a_job(
    client: Client, address: str, fake_engine: FakeEngine
) -> None:
    fake_engine.error = Overloaded("The queue is full.", retry_after=2)
    send(client, address, 0, jpeg())
    page = done(client, address, 0).json()["page"]
    assert "1 to go" in text(client.get(page))


@pytest.mark.parametrize(
    ("file", "status", "told"),
    [
        (SimpleUploadedFile("notes.txt", b"text"), 415, "This is no photo this service can read."),
        (SimpleUploadedFile("big.jpg", b"\xff\xd8\xff" + bytes(16 * 2**20)), 413, "more than 16 MB"),
        (SimpleUploadedFile("a.zip", b"none"), 415, "This is no ZIP archive that can be read."),
        (zipped(*(f"{number}.jpg" for number in range(4))), 413, "at most 3 photos"),
    ],
    ids=["text", "too large", "no archive", "too many"],
)
def test_what_is_no_photo_is_told_at_once(
    client: Client, address: str, settings, file: SimpleUploadedFile, status: int, told: str
) -> None:
    settings.JOB_MAX_PHOTOS = 3
    file.seek(0)
    response = send(client, address, 0, file)
    assert response.status_code == status
    assert told in response.json()["detail"]
    assert not JobPhoto.objects.exists()
    response = done(client, address, 0)
    assert (response.status_code, response.json()["detail"]) == (
        422,
        "None of the photos arrived. Send them again.",
    )


def test_all_together_are_not_more_than_a_job_may_have(
    client: Client, address: str, settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.JOB_MAX_PHOTOS = 3
    assert send(client, address, 0, zipped("a.jpg", "b.jpg")).status_code == 200
    assert send(client, address, 1, zipped("c.jpg", "d.jpg")).status_code == 413
    assert send(client, address, 0, zipped("c.jpg", "d.jpg", "e.jpg")).status_code == 200, (
        "instead of those before"
    )
    monkeypatch.setattr("captioner.jobs.services.waiting_bytes_most", lambda: 10)
    response = send(client, address, 0, jpeg())
    assert response.status_code == 429
    assert "Send more when a job is finished" in response.json()["detail"]


@pytest.mark.parametrize("place", ["20000", "99999999999999999999"])
def test_places_that_nothing_can_have(client: Client, address: str, place: str) -> None:
    assert client.post(f"{address}/{place}", {"image": jpeg()}).status_code == 422
    assert client.post(f"{address}/0", {"image": "text"}).status_code == 422
    assert client.post(address, {"places": f"{place},x,-1,"}).status_code == 422


def test_uploads_count_once_as_requests_and_are_bounded(client: Client, settings) -> None:
    settings.RATE_LIMITS = settings.RATE_LIMITS | {"address": (1, 3600)}
    address = client.post("/uploads").json()["job"]
    assert [send(client, address, place, jpeg()).status_code for place in range(3)] == [200] * 3
    assert client.post("/uploads").status_code == 429
    settings.RATE_LIMITS = settings.RATE_LIMITS | {"address": None}
    settings.JOB_MAX_WAITING = 1
    assert client.post("/uploads").status_code == 429
    assert client.post(f"{address}/cancel").status_code == 204
    assert client.post("/uploads").status_code == 201


def test_nobody_else_sends_to_it(client: Client, address: str, user: User) -> None:
    stranger = Client()
    stranger.force_login(user)
    assert send(stranger, address, 0, jpeg()).status_code == 404
    assert done(stranger, address, 0).status_code == 404
    assert stranger.post(f"{address}/cancel").status_code == 404
    assert client.get(address).status_code == 405
