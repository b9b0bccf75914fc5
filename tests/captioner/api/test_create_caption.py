"""POST /api/v1/captions"""

import base64
import io
import json
import socket
import uuid

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from captioner.captions.api_keys import api_key_create
from captioner.exceptions import ModelUnavailable
from captioner.inference.types import MAX_NEW_TOKENS, MAX_NUM_BEAMS, MAX_NUM_CAPTIONS, DecodingParameters
from captioner.models import ApiKey, Caption, Photo
from captioner.serving.process import serving
from tests.conftest import FakeEngine, draw_jpeg

URL = "/api/v1/captions"

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("fake_engine")]


def upload(photo: bytes, name: str = "photo.jpg") -> SimpleUploadedFile:
    return SimpleUploadedFile(name, photo, "image/jpeg")


def post_form(client: Client, photo: bytes, query: str = "", **fields: object):
    return client.post(URL + query, {"image": upload(photo), **fields})


def post_json(client: Client, body: object, query: str = ""):
    return client.post(URL + query, body, content_type="application/json")


def post_body(client: Client, photo: bytes, query: str = "", content_type: str = "image/jpeg"):
    return client.generic("POST", URL + query, photo, content_type=content_type)


def encoded(photo: bytes) -> str:
    return base64.b64encode(photo).decode()


def test_form_upload_is_captioned_and_logged(client: Client, photo_bytes: bytes) -> None:
    response = post_form(client, photo_bytes)
    assert response.status_code == 201
    assert response.headers["Content-Type"] == "application/json"
    caption = Caption.objects.get()
    assert caption.source == Caption.Source.API
    path = f"http://testserver{URL}/{caption.pk}"
    assert response.headers["Location"] == path
    body = response.json()
    assert body.pop("created_at").endswith("Z")
    assert set(body.pop("timings_ms")) == {"decode", "queue", "inference", "total"}
    assert body == {
        "id": str(caption.pk),
        "caption": "a 64 by 48 photo",
        "machine_caption": "a 64 by 48 photo",
        "source": "model",
        "file_name": "photo.jpg",
        "decorative": False,
        "looked_at": None,
        "confidence": None,
        "alternatives": [],
        "words": [{"text": "a", "probability": 0.9}, {"text": "photo", "probability": 0.4}],
        "model": {"name": "fake", "version": "fake-1"},
        "image": {"sha256": caption.photo.sha256, "width": 64, "height": 48},
        "user": "",
        "feedback": None,
        "links": {
            "self": path,
            **{name: f"{path}/{name}" for name in ("photo", "thumbnail", "feedback", "again")},
        },
    }


@pytest.mark.parametrize("content_type", ["image/jpeg", "image/x-whatever", "application/octet-stream"])
def test_photo_as_request_body(client: Client, photo_bytes: bytes, content_type: str) -> None:
    response = post_body(client, photo_bytes, content_type=content_type)
    assert response.status_code == 201
    assert response.json()["image"]["width"] == 64


@pytest.mark.parametrize("prefix", ["", "data:image/jpeg;base64,", "data:;base64,"])
def test_photo_as_base64_in_json(client: Client, photo_bytes: bytes, prefix: str) -> None:
    response = post_json(client, {"image_base64": prefix + encoded(photo_bytes)})
    assert response.status_code == 201
    assert response.json()["image"]["width"] == 64


def test_base64_may_be_wrapped_in_lines(client: Client, photo_bytes: bytes) -> None:
    response = post_json(client, {"image_base64": base64.encodebytes(photo_bytes).decode()})
    assert response.status_code == 201


def test_photo_sent_in_chunks_without_a_length(client: Client, photo_bytes: bytes) -> None:
    chunked = {
        "wsgi.input": io.BytesIO(photo_bytes),
        "wsgi.input_terminated": True,
        "CONTENT_LENGTH": "",
        "CONTENT_TYPE": "image/jpeg",
        "HTTP_TRANSFER_ENCODING": "chunked",
    }
    response = client.generic("POST", URL, **chunked)
    assert response.status_code == 201


def test_the_same_photo_sent_three_ways_is_stored_once(client: Client, photo_bytes: bytes) -> None:
    post_form(client, photo_bytes)
    post_body(client, photo_bytes)
    post_json(client, {"image_base64": encoded(photo_bytes)})
    assert Photo.objects.count() == 1
    assert Caption.objects.count() == 3


# --- Options ------------------------------------------------------------------------------------------------

OPTIONS = {"num_captions": 2, "num_beams": 4, "max_new_tokens": 8}
QUERY = "?num_captions=2&num_beams=4&max_new_tokens=8"


def test_without_options_the_engine_decides(
    client: Client, photo_bytes: bytes, fake_engine: FakeEngine
) -> None:
    post_form(client, photo_bytes)
    assert fake_engine.submitted == [fake_engine.default_parameters]


@pytest.mark.parametrize("way", ["form", "json", "query of form", "query of json", "query of body"])
def test_options_come_in_body_or_query(
    client: Client, photo_bytes: bytes, fake_engine: FakeEngine, way: str
) -> None:
    json_photo = {"image_base64": encoded(photo_bytes)}
    response = {
        "form": lambda: post_form(client, photo_bytes, **OPTIONS),
        "json": lambda: post_json(client, json_photo | OPTIONS),
        "query of form": lambda: post_form(client, photo_bytes, QUERY),
        "query of json": lambda: post_json(client, json_photo, QUERY),
        "query of body": lambda: post_body(client, photo_bytes, QUERY),
    }[way]()
    assert response.status_code == 201
    assert fake_engine.submitted == [DecodingParameters(**OPTIONS)]
    assert response.json()["alternatives"] == [{"caption": "a 64 by 48 photo number 1", "confidence": None}]


def test_body_wins_over_query(client: Client, photo_bytes: bytes, fake_engine: FakeEngine) -> None:
    post_form(client, photo_bytes, "?max_new_tokens=8", max_new_tokens=9)
    assert fake_engine.submitted[0].max_new_tokens == 9


def test_more_captions_raise_the_beams(client: Client, photo_bytes: bytes, fake_engine: FakeEngine) -> None:
    fake_engine.default_parameters = DecodingParameters(num_captions=1, num_beams=1)
    assert post_form(client, photo_bytes, num_captions=3).status_code == 201
    assert fake_engine.submitted[0].num_beams == 3


@pytest.mark.parametrize("value", ["0", "-1", "65536", "1.5", "many", "", "9" * 5000])
@pytest.mark.parametrize(
    ("field", "limit"),
    [("num_captions", MAX_NUM_CAPTIONS), ("num_beams", MAX_NUM_BEAMS), ("max_new_tokens", MAX_NEW_TOKENS)],
)
def test_bad_option_is_named_with_its_range(
    client: Client, photo_bytes: bytes, field: str, limit: int, value: str
) -> None:
    response = post_form(client, photo_bytes, **{field: value})
    assert response.status_code == 422
    message = f"Give a whole number from 1 to {limit}."
    assert response.json()["errors"] == [{"field": field, "detail": message}]
    assert response.json()["detail"] == f"{field}: {message}"


@pytest.mark.parametrize("value", [True, None, 2.5, [2], {"a": 1}, float("inf")])
def test_bad_option_type_in_json(client: Client, photo_bytes: bytes, value: object) -> None:
    body = json.dumps({"image_base64": encoded(photo_bytes), "num_beams": value}).replace("Infinity", "1e999")
    response = post_json(client, body)
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "num_beams"


def test_more_captions_than_beams_is_refused(client: Client, photo_bytes: bytes) -> None:
    response = post_form(client, photo_bytes, num_captions=4, num_beams=2)
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "num_beams"
    assert "lower num_captions" in response.json()["detail"]


# --- No photo, or not one -----------------------------------------------------------------------------------


def test_form_without_photo(client: Client) -> None:
    response = client.post(URL, {"num_beams": "1"})
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "image"
    assert "image_base64" in response.json()["detail"]


def test_empty_request(client: Client) -> None:
    response = client.generic("POST", URL)
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "image"


def test_text_where_the_file_should_be(client: Client) -> None:
    response = client.post(URL, {"image": "photo.jpg"})
    assert response.status_code == 422
    assert "as a file" in response.json()["detail"]


def test_two_photos_in_one_request(client: Client, photo_bytes: bytes) -> None:
    response = client.post(URL, {"image": [upload(photo_bytes), upload(photo_bytes)]})
    assert response.status_code == 422
    assert "one photo per request" in response.json()["detail"]


@pytest.mark.parametrize("value", ["%%%", "abc", "é", 7, None, ["abc"], "data:image/jpeg,abc", "YQ=a"])
def test_invalid_base64(client: Client, value: object) -> None:
    response = post_json(client, {"image_base64": value})
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "image_base64"


@pytest.mark.parametrize(
    ("photo", "status", "reason"),
    [
        (b"just some text, no photo", 415, "not_an_image"),
        (draw_jpeg()[:-40], 422, "truncated"),
        (draw_jpeg() + bytes(17 * 1024**2), 413, "too_large"),
    ],
)
def test_refused_photo_says_why(client: Client, photo: bytes, status: int, reason: str) -> None:
    for response in (
        post_form(client, photo),
        post_body(client, photo),
        post_json(client, {"image_base64": encoded(photo)}),
    ):
        assert response.status_code == status
        assert response.headers["Content-Type"] == "application/problem+json"
        assert response.json()["type"] == "urn:captioner:problem:invalid-image"
        assert response.json()["reason"] == reason
    assert not Caption.objects.exists()


def test_empty_photo(client: Client) -> None:
    for response in (post_form(client, b""), post_json(client, {"image_base64": ""})):
        assert response.status_code == 422
        assert response.json()["reason"] == "empty"


# --- Whose it is --------------------------------------------------------------------------------------------


def test_caption_belongs_to_the_signed_in_user(client: Client, photo_bytes: bytes, user) -> None:
    client.force_login(user)
    post_form(client, photo_bytes)
    assert Caption.objects.get().user == user


def test_caption_belongs_to_key_and_its_user(client: Client, photo_bytes: bytes, user) -> None:
    api_key, secret = api_key_create(user, "script")
    response = client.post(URL, {"image": upload(photo_bytes)}, headers={"Authorization": f"Bearer {secret}"})
    assert response.status_code == 201
    caption = Caption.objects.get()
    assert (caption.api_key, caption.user) == (api_key, user)
    assert not response.cookies
    assert ApiKey.objects.count() == 1


def test_visitor_is_recognised_by_the_cookie(client: Client, photo_bytes: bytes) -> None:
    post_form(client, photo_bytes)
    post_form(client, photo_bytes)
    visitors = set(Caption.objects.values_list("visitor", flat=True))
    assert len(visitors) == 1
    assert isinstance(visitors.pop(), uuid.UUID)


# --- The engine ---------------------------------------------------------------------------------------------


def test_options_while_no_model_is_ready(
    client: Client, photo_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def engine() -> None:
        raise ModelUnavailable("The model is being loaded.")

    monkeypatch.setattr(serving, "engine", engine)
    for response in (post_form(client, photo_bytes), post_form(client, photo_bytes, num_beams=2)):
        assert response.status_code == 503
        assert response.json()["detail"] == "The model is being loaded."
        assert int(response.headers["Retry-After"]) >= 1


def test_work_of_a_client_that_left_is_dropped(
    client: Client, photo_bytes: bytes, fake_engine: FakeEngine
) -> None:
    fake_engine.never_answers = True
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours:
        response = client.generic("POST", URL, photo_bytes, "image/jpeg", **{"gunicorn.socket": ours})
    assert response.status_code == 400
    assert response.json()["type"] == "urn:captioner:problem:client-gone"
    assert not Caption.objects.exists()
