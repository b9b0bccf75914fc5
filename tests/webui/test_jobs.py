"""The pages of batch jobs."""

import io
import re
import uuid
import zipfile

import pytest
from django.contrib.auth.models import User
from django.core.files.storage import storages
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from captioner.celery import app
from captioner.jobs import worker
from captioner.models import Caption, Job, JobPhoto
from captioner.serving.process import serving
from tests.conftest import FakeEngine, draw_jpeg
from tests.webui.pages import jpeg, text

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _no_broker(fake_engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "refresh", lambda **_: fake_engine)
    monkeypatch.setattr(app, "send_task", lambda *_, **__: None)
    monkeypatch.setattr("webui.home.job_begin", lambda *_, **__: None)  # workers do it all


def zipped(**photos: bytes) -> SimpleUploadedFile:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in photos.items():
            archive.writestr(f"{name}.jpg", data)
    return SimpleUploadedFile("Holiday.ZIP", file.getvalue())


def send(client: Client, *files: SimpleUploadedFile):
    return client.post("/", {"image": list(files)})


@pytest.mark.parametrize(
    "files", [lambda: [zipped(a=draw_jpeg(), b=draw_jpeg())], lambda: [jpeg("a.jpg"), jpeg("b.jpg")]]
)
def test_an_archive_or_photos_become_a_job_that_is_watched(client: Client, files) -> None:
    response = send(client, *files())
    job = Job.objects.get()
    assert (response.status_code, response.url) == (303, f"/jobs/{job.pk}")
    page = text(client.get(response.url))
    assert "2 to go" in page
    assert 'http-equiv="refresh"' in page
    assert "Stop" in page
    assert (job.name or "2 photos") in text(client.get("/jobs/"))


def test_photos_and_archives_come_together_in_their_order(client: Client) -> None:
    address = send(client, jpeg("first.jpg"), zipped(b=draw_jpeg(), a=draw_jpeg()), jpeg("last.jpg")).url
    assert list(JobPhoto.objects.values_list("name", flat=True)) == [
        "first.jpg",
        "b.jpg",
        "a.jpg",
        "last.jpg",
    ]
    assert "4 photos" in text(client.get(address))


def test_a_job_has_the_name_that_its_owner_gives_it(client: Client) -> None:
    address = send(client, zipped(a=draw_jpeg())).url
    assert ">Holiday</h1>" in text(client.get(address)), "as the ZIP was called"
    response = client.post(f"{address}/name", {"name": f"  <Crete>\0 {'x' * 200}"}, follow=True)
    assert "&lt;Crete&gt;" in text(response)
    assert len(Job.objects.get().name) <= 100
    assert "&lt;Crete&gt;" in text(client.get("/jobs/"))
    client.post(f"{address}/name", {"name": " "})
    assert ">1 photo</h1>" in text(client.get(address))
    assert Client().post(f"{address}/name", {"name": "mine"}).status_code == 404


def test_a_finished_job_offers_its_captions_and_rests(client: Client) -> None:
    address = send(client, zipped(good=draw_jpeg(), bad=b"no photo")).url
    worker.job_photos_caption(Job.objects.get().pk, [0, 1])
    page = text(client.get(address))
    assert "1 captioned, 1 failed" in page
    assert "bad.jpg" in page
    assert "This is no photo this service can read." in page
    assert "refresh" not in page
    assert "Stop" not in page
    for link in re.findall(r'href="([^"]+\?format=\w+)"', page):
        assert client.get(link).status_code == 200


def test_captions_of_jobs_are_gone_through_in_the_order_they_were_sent(client: Client) -> None:
    address = send(client, zipped(c=draw_jpeg((30, 20)), a=draw_jpeg((40, 20)), b=draw_jpeg((50, 20)))).url
    job = Job.objects.get()
    worker.job_photos_caption(job.pk, [2, 1, 0])
    assert f'href="/worksheet?job={job.pk}"' in text(client.get(address))
    page = text(client.get(f"/worksheet?job={job.pk}"))
    assert re.findall(r"(\w)\.jpg</label>", page) == ["c", "a", "b"]
    assert "a 30 by 20 photo number 2" in page, "with what else the model had to offer"
    assert client.get(f"/worksheet?job={job.pk}&older=x").status_code == 404
    assert client.get("/worksheet?job=x").status_code == 400


def test_a_job_is_stopped_by_a_post_only(client: Client) -> None:
    address = send(client, zipped(a=draw_jpeg())).url
    assert client.get(f"{address}/cancel").status_code == 405
    assert "No more photos of this job are captioned." in text(client.post(f"{address}/cancel", follow=True))
    assert Job.objects.get().status == "cancelled"


@pytest.mark.parametrize(
    ("files", "status", "told"),
    [
        (list, 400, "Choose at least one photo first."),
        (lambda: [SimpleUploadedFile("a.zip", b"none")], 415, "This is no ZIP archive that can be read."),
        (lambda: [zipped()], 422, "There is nothing in the archive."),
    ],
)
def test_what_cannot_be_taken_is_told_on_the_form(client: Client, files, status: int, told: str) -> None:
    response = send(client, *files())
    assert response.status_code == status
    assert told in text(response)
    assert not Job.objects.exists()


def test_jobs_count_as_requests(client: Client, settings) -> None:
    settings.RATE_LIMITS = settings.RATE_LIMITS | {"address": (1, 3600)}
    assert send(client, zipped(a=draw_jpeg())).status_code == 303
    response = send(client, zipped(a=draw_jpeg()))
    assert response.status_code == 429
    assert int(response.headers["Retry-After"]) > 0


def test_nobody_elses_job_is_there(client: Client, user: User) -> None:
    address = send(client, zipped(a=draw_jpeg())).url
    stranger = Client()
    stranger.force_login(user)
    assert stranger.get(address).status_code == 404
    assert stranger.post(f"{address}/cancel").status_code == 404
    assert "/jobs/" + address.rsplit("/", 1)[-1] not in text(stranger.get("/jobs/"))


def test_a_job_is_deleted_by_its_owner_and_its_captions_stay(client: Client) -> None:
    address = send(client, zipped(aunt_mary=draw_jpeg(), later=draw_jpeg())).url
    worker.job_photos_caption(Job.objects.get().pk, [0])
    assert Client().get(f"{address}/delete").status_code == 404
    assert Client().post(f"{address}/delete").status_code == 404
    assert f"{address}/delete" in text(client.get(address))
    assert "Delete this job?" in text(client.get(f"{address}/delete"))
    assert Job.objects.exists(), "asked first"
    waiting = JobPhoto.objects.get(index=1).input
    response = client.post(f"{address}/delete", follow=True)
    assert "The job was deleted." in text(response)
    assert not JobPhoto.objects.exists()
    assert not storages["uploads"].exists(waiting)
    assert Caption.objects.count() == 1
    worker.job_photos_caption(uuid.UUID(address.rsplit("/", 1)[-1]), [1])  # a message that is late


def test_a_deleted_captions_file_name_is_gone_from_its_job(client: Client) -> None:
    address = send(client, zipped(aunt_mary=draw_jpeg(), other=draw_jpeg(colour="red"))).url
    job = Job.objects.get()
    worker.job_photos_caption(job.pk, [0, 1])
    caption = Caption.objects.get(job_photo__index=0)
    client.post(f"/captions/{caption.pk}/delete")
    results = b"".join(client.get(f"/api/v1/jobs/{job.pk}/results?format=csv").streaming_content).decode()
    assert "aunt_mary" not in results
    assert "other.jpg" in results
    assert "aunt_mary" not in text(client.get(address))
