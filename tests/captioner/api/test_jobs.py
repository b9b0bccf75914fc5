"""POST, GET and DELETE /api/v1/jobs, and what became of the photos."""

import csv
import io
import json
import uuid
import zipfile

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from captioner.captions.api_keys import api_key_create
from captioner.celery import app
from captioner.jobs import worker
from captioner.models import Caption, Job
from captioner.serving.process import serving
from tests.captioner.jobs.test_archives import raw_zip
from tests.conftest import FakeEngine, draw_jpeg

URL = "/api/v1/jobs"

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def messages(fake_engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[int]]]:
    """Messages to workers, collected; `work` does what they ask for."""
    told: list[tuple[str, list[int]]] = []
    monkeypatch.setattr(serving, "refresh", lambda **options: fake_engine)
    monkeypatch.setattr(app, "send_task", lambda _, arguments, **__: told.append(arguments))
    return told


def work(messages: list[tuple[str, list[int]]]) -> None:
    while messages:
        job_id, indexes = messages.pop(0)
        worker.job_photos_caption(uuid.UUID(job_id), indexes)


def zip_of(**photos: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in photos.items():
            archive.writestr(name.replace("__", "."), data)
    return file.getvalue()


def two_photos() -> bytes:
    return zip_of(a__jpg=draw_jpeg((20, 10)), b__jpg=draw_jpeg((30, 10)))


def send(client: Client, archive: bytes, query: str = "", **headers: str):
    options = {"content_type": "application/zip", "headers": headers}
    return client.generic("POST", URL + query, archive, **options)


def upload(name: str, data: bytes) -> SimpleUploadedFile:
    return SimpleUploadedFile(name, data)


@pytest.fixture
def program(user: User) -> Client:
    _, secret = api_key_create(user, "script")
    return Client(headers={"Authorization": f"Bearer {secret}"})


def test_an_archive_is_accepted_and_told_where_to_look(program: Client) -> None:
    response = send(program, two_photos())
    assert response.status_code == 202
    job = response.json()
    assert response.headers["Location"] == job["links"]["self"] == f"http://testserver{URL}/{job['id']}"
    assert job["status"] == "queued"
    assert job["photos"] == {"total": 2, "captioned": 0, "failed": 0, "cancelled": 0, "pending": 2}
    assert job["finished_at"] is None


@pytest.mark.parametrize(
    "fields",
    [
        lambda: {"archive": upload("photos.zip", two_photos())},
        lambda: {"image": [upload("a.jpg", draw_jpeg((20, 10))), upload("b.jpg", draw_jpeg((30, 10)))]},
    ],
)
def test_forms_carry_an_archive_or_photos(program: Client, messages: list, fields) -> None:
    response = program.post(URL, fields())
    assert response.status_code == 202
    work(messages)
    job = program.get(response.headers["Location"]).json()
    assert (job["status"], job["photos"]["captioned"]) == ("finished", 2)
    assert {caption.text for caption in Caption.objects.all()} == {"a 20 by 10 photo", "a 30 by 10 photo"}


def test_its_captions_are_in_the_history(program: Client, messages: list) -> None:
    send(program, two_photos())
    work(messages)
    assert len(program.get("/api/v1/captions").json()["results"]) == 2


def test_options_are_wishes_for_all_photos(program: Client, messages: list, fake_engine: FakeEngine) -> None:
    send(program, two_photos(), "?num_captions=2")
    work(messages)
    assert {wish.num_captions for wish in fake_engine.submitted} == {2}
    assert send(program, two_photos(), "?num_captions=9").status_code == 422
    assert send(program, two_photos(), "?num_captions=3&num_beams=2").status_code == 422


def test_jobs_are_accepted_while_no_model_serves(program: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    from captioner.exceptions import ModelUnavailable

    def none_ready() -> None:
        raise ModelUnavailable("loading")

    monkeypatch.setattr(serving, "engine", none_ready)
    assert send(program, two_photos(), "?num_captions=2").status_code == 202


# --- What is refused ---


@pytest.mark.parametrize(
    ("archive", "status", "reason"),
    [
        (b"no archive", 415, "not_an_archive"),
        (zip_of(), 422, "empty"),
        (zip_of(**{f"p{n}__jpg": b"x" for n in range(4)}), 413, "too_many"),
        (zip_of(a__jpg=bytes(2**20), b__jpg=bytes(1)), 413, "too_large"),
        (zip_of(**{"../a__jpg": b"x"}), 422, "unsafe_name"),
    ],
)
def test_an_archive_that_is_refused_says_why(
    program: Client, settings, archive: bytes, status: int, reason: str
) -> None:
    settings.JOB_MAX_PHOTOS, settings.JOB_MAX_MEGABYTES = 3, 1
    response = send(program, archive)
    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["reason"] == reason
    assert not Job.objects.exists()


@pytest.mark.parametrize(
    "fields",
    [
        dict,
        lambda: {"archive": "text"},
        lambda: {"image": "text"},
        lambda: {"archive": upload("a.zip", two_photos()), "image": upload("a.jpg", draw_jpeg())},
        lambda: {"archive": [upload("a.zip", two_photos()), upload("b.zip", two_photos())]},
    ],
)
def test_a_form_without_exactly_one_kind_of_photos(program: Client, fields) -> None:
    response = program.post(URL, fields())
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] in {"archive", "image"}


def test_an_empty_body(program: Client) -> None:
    assert send(program, b"").status_code == 422


def test_a_body_above_the_limit_is_refused_before_it_is_read(program: Client, settings) -> None:
    settings.JOB_MAX_MEGABYTES = 1
    options = {"content_type": "application/zip", "CONTENT_LENGTH": 3 * 2**20}
    assert program.generic("POST", URL, two_photos(), **options).status_code == 413


def test_other_media_are_not_read(program: Client) -> None:
    response = program.post(URL, {"archive": "x"}, content_type="application/json")
    assert response.status_code == 415
    assert response.json()["supported"] == ["multipart/form-data", "application/zip"]


# --- Results ---


def results(client: Client, job: dict, wanted: str) -> str:
    response = client.get(f"{job['links']['results']}?format={wanted}")
    assert response.status_code == 200
    assert response.headers["Content-Disposition"].startswith("attachment; filename=")
    return b"".join(response.streaming_content).decode()


@pytest.fixture
def done(program: Client, messages: list) -> dict:
    photos = {
        "img_0007__jpg": draw_jpeg((20, 10)),
        "bad_0008__txt": b"no photo",
        "img_0042__jpg": draw_jpeg((30, 10)),
    }
    job = send(program, zip_of(**photos)).json()
    work(messages)
    return job


def test_json_lines_tell_all_of_each_photo(program: Client, done: dict) -> None:
    first, second, third = map(json.loads, results(program, done, "jsonl").splitlines())
    assert (first["index"], first["name"], first["status"]) == (0, "img_0007.jpg", "captioned")
    assert first["caption"] == "a 20 by 10 photo"
    assert first["words"][0] == {"text": "a", "probability": 0.9}
    assert program.get(f"/api/v1/captions/{first['caption_id']}").status_code == 200
    assert (second["status"], second["reason"], second["caption"]) == ("failed", "not_an_image", None)
    assert "JPEG" in second["error"]
    assert third["model_version"] == "fake-1"


def test_csv_opens_in_a_spreadsheet(program: Client, done: dict) -> None:
    rows = list(csv.DictReader(io.StringIO(results(program, done, "csv"))))
    assert [(row["name"], row["caption"], row["reason"]) for row in rows] == [
        ("img_0007.jpg", "a 20 by 10 photo", ""),
        ("bad_0008.txt", "", "not_an_image"),
        ("img_0042.jpg", "a 30 by 10 photo", ""),
    ]


def test_coco_results_name_photos_by_the_numbers_they_have(program: Client, done: dict) -> None:
    assert json.loads(results(program, done, "coco")) == [
        {"image_id": 7, "caption": "a 20 by 10 photo"},
        {"image_id": 42, "caption": "a 30 by 10 photo"},
    ]


def test_coco_results_count_photos_whose_names_do_not_tell(program: Client, messages: list) -> None:
    job = send(program, two_photos()).json()
    assert json.loads(results(program, job, "coco")) == [], "none yet"
    work(messages)
    assert [entry["image_id"] for entry in json.loads(results(program, job, "coco"))] == [0, 1]


def test_a_deleted_caption_is_gone_from_the_results_too(program: Client, done: dict) -> None:
    first = json.loads(results(program, done, "jsonl").splitlines()[0])
    program.delete(f"/api/v1/captions/{first['caption_id']}")
    again = json.loads(results(program, done, "jsonl").splitlines()[0])
    assert (again["status"], again["caption"], again["name"]) == ("deleted", None, "deleted")


def test_a_format_there_is_not(program: Client, done: dict) -> None:
    response = program.get(f"{done['links']['results']}?format=xml")
    assert response.status_code == 422
    assert "use one of: jsonl, csv, coco" in response.json()["detail"]


# --- Lists, ends, and strangers ---


def test_jobs_are_listed_newest_first_a_page_at_a_time(program: Client) -> None:
    ids = [send(program, two_photos()).json()["id"] for _ in range(3)]
    page = program.get(f"{URL}?page_size=2").json()
    assert [job["id"] for job in page["results"]] == ids[:0:-1]
    assert [job["id"] for job in program.get(page["next"]).json()["results"]] == ids[:1]


def test_delete_cancels(program: Client, messages: list) -> None:
    job = send(program, two_photos()).json()
    assert program.delete(job["links"]["self"]).status_code == 204
    work(messages)
    job = program.get(job["links"]["self"]).json()
    assert (job["status"], job["photos"]["cancelled"]) == ("cancelled", 2)
    assert not Caption.objects.exists()


def test_somebody_elses_job_does_not_exist(program: Client, done: dict, user: User, other_user: User) -> None:
    _, other_key = api_key_create(user, "another")
    strangers = [Client(), Client(), Client(headers={"Authorization": f"Bearer {other_key}"})]
    strangers[1].force_login(other_user)
    for stranger in strangers:
        for ask, address in (
            (stranger.get, done["links"]["self"]),
            (stranger.get, done["links"]["results"]),
            (stranger.delete, done["links"]["self"]),
        ):
            unknown = ask(address.replace(done["id"], str(uuid.uuid4())))
            response = ask(address)
            assert response.status_code == 404
            assert response.content == unknown.content
        assert stranger.get(URL).json()["results"] == []
    owner = Client()
    owner.force_login(user)
    assert owner.get(done["links"]["self"]).status_code == 200, "a key's user sees what it made"


def test_anonymous_use_may_be_off(client: Client, settings) -> None:
    settings.ALLOW_ANONYMOUS = False
    assert send(client, two_photos()).status_code == 401


# --- Names, and how much waits ---


def test_a_nameless_entry_is_no_photo_and_no_defect(program: Client) -> None:
    archive = raw_zip((b"", b""), (b"a.jpg", draw_jpeg())).getvalue()
    response = send(program, archive)
    assert response.status_code == 202
    assert response.json()["photos"]["total"] == 1
    page = program.post("/", {"image": upload("photos.zip", archive)})
    assert page.status_code == 303


def test_the_code_page_of_names_can_be_said(program: Client, messages: list) -> None:
    archive = raw_zip(("照片.jpg".encode("gbk"), draw_jpeg())).getvalue()
    job = send(program, archive, "?code_page=cp936").json()
    work(messages)
    assert json.loads(results(program, job, "jsonl"))["name"] == "照片.jpg"
    assert send(program, archive, "?code_page=latin-0").json()["errors"][0]["field"] == "code_page"


def test_so_many_jobs_wait_and_no_more_are_read(program: Client, messages: list, settings) -> None:
    settings.JOB_MAX_WAITING = 1
    job = send(program, two_photos()).json()
    refused = send(program, b"this is not even looked at")
    assert (refused.status_code, refused.json()["type"]) == (429, "urn:captioner:problem:overloaded")
    assert int(refused.headers["Retry-After"]) > 0
    assert program.delete(f"{URL}/{job['id']}").status_code == 204
    assert send(program, two_photos()).status_code == 202


def test_visitors_of_one_address_share_what_may_wait(messages: list, settings) -> None:
    settings.JOB_MAX_WAITING, settings.TRUSTED_PROXIES = 1, 1
    assert send(Client(), two_photos(), X_Forwarded_For="192.0.2.1").status_code == 202
    page = Client().post(
        "/",
        {"image": [upload("a.jpg", draw_jpeg()), upload("b.jpg", draw_jpeg())]},
        headers={"X-Forwarded-For": "192.0.2.1"},
    )
    assert page.status_code == 429
    assert "Too many of your photos wait" in page.content.decode()
    assert page.headers["Retry-After"]
    assert send(Client(), two_photos(), X_Forwarded_For="192.0.2.2").status_code == 202
    assert not Job.objects.filter(caller__contains="192.0.2").exists(), "addresses are not kept"


def test_csv_says_utf8_to_excel_where_it_is_asked_to(program: Client, done: dict) -> None:
    plain, marked = results(program, done, "csv"), results(program, done, "csv&bom=1")
    assert marked == "\N{ZERO WIDTH NO-BREAK SPACE}" + plain
    assert results(program, done, "jsonl&bom=1") == results(program, done, "jsonl")


def test_names_are_no_formulas_in_csv_alone(program: Client, messages: list) -> None:
    name = '=HYPERLINK("http://localhost","x").jpg'
    job = send(program, raw_zip((name.encode(), draw_jpeg())).getvalue()).json()
    work(messages)
    assert next(csv.DictReader(io.StringIO(results(program, job, "csv"))))["name"] == "'" + name
    assert json.loads(results(program, job, "jsonl"))["name"] == name
