"""Requests that are broken, or meant to break something: always a 4xx that says what was wrong."""

import base64
import io
import json
import tracemalloc

import pytest
from django.contrib.auth.models import User
from django.test import Client

from captioner.models import Caption
from tests.conftest import FakeEngine, draw_jpeg

URL = "/api/v1/captions"

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("fake_engine")]


def post(client: Client, body: bytes, content_type: str):
    return client.generic("POST", URL, body, content_type=content_type)


def multipart(*parts: bytes, boundary: bytes = b"b") -> bytes:
    return (
        b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts) + b"--" + boundary + b"--\r\n"
    )


def file_part(content: bytes, name: bytes = b"image") -> bytes:
    return b'Content-Disposition: form-data; name="' + name + b'"; filename="a.jpg"\r\n\r\n' + content


def assert_problem(response, status: int, kind: str) -> None:
    assert response.headers["Content-Type"] == "application/problem+json"
    assert (response.status_code, response.json()["type"]) == (status, f"urn:captioner:problem:{kind}")
    assert response.json()["detail"]
    assert not Caption.objects.exists()


class Unreadable(io.RawIOBase):
    """A body that must not be touched."""

    def read(self, _size: int = -1) -> bytes:
        raise AssertionError("The body was read.")


class Endless(io.RawIOBase):
    """A body without an end that counts what is taken from it."""

    taken = 0

    def read(self, size: int = -1) -> bytes:
        assert size >= 0
        self.taken += size
        return bytes(size)


@pytest.mark.parametrize(
    "content_type", ["multipart/form-data; boundary=b", "application/json", "image/jpeg"]
)
def test_huge_body_is_refused_unread(client: Client, content_type: str) -> None:
    head = {"CONTENT_TYPE": content_type, "CONTENT_LENGTH": str(5 * 1024**3)}
    response = client.generic("POST", URL, **head, **{"wsgi.input": Unreadable()})
    assert_problem(response, 413, "request-too-large")
    assert "24 MiB" in response.json()["detail"]


def test_endless_chunked_body_is_read_up_to_the_limit(client: Client, settings) -> None:
    body = Endless()
    head = {"CONTENT_TYPE": "image/jpeg", "CONTENT_LENGTH": "", "HTTP_TRANSFER_ENCODING": "chunked"}
    response = client.generic("POST", URL, **head, **{"wsgi.input": body, "wsgi.input_terminated": True})
    assert_problem(response, 413, "request-too-large")
    assert body.taken <= settings.DATA_UPLOAD_MAX_MEMORY_SIZE + 1


def test_photo_at_the_limit_fits_in_base64(client: Client, settings) -> None:
    assert settings.DATA_UPLOAD_MAX_MEMORY_SIZE > 16 * 1024**2 * 4 / 3


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"{'a': 1}", b"\xff\xfe", b'{"a": NaN}', b"1", b"[]", b'"text"', b"null", b"[" * 100_000],
)
def test_json_that_is_no_object(client: Client, body: bytes) -> None:
    response = post(client, body, "application/json")
    if body:
        assert_problem(response, 400, "parse-error")
    else:
        assert_problem(response, 422, "invalid-fields")


def test_json_of_deep_nesting_inside_an_object(client: Client) -> None:
    depth = 100_000
    assert_problem(
        post(client, b'{"a":' * depth + b"1" + b"}" * depth, "application/json"), 400, "parse-error"
    )


def test_json_number_of_many_digits(client: Client) -> None:
    body = b'{"image_base64": "", "num_beams": ' + b"9" * 100_000 + b"}"
    assert_problem(post(client, body, "application/json"), 400, "parse-error")


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", multipart(file_part(draw_jpeg()))),
        ("multipart/form-data; boundary=", multipart(file_part(draw_jpeg()))),
        ("multipart/form-data; boundary=b", b"--b\r\n" + b"Content-Disposition: form-data; " * 1000),
    ],
)
def test_malformed_multipart(client: Client, content_type: str, body: bytes) -> None:
    response = post(client, body, content_type)
    assert 400 <= response.status_code < 500
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["detail"]


def test_a_boundary_that_is_too_long_is_named(client: Client) -> None:
    boundary = b"b" * 300
    body = multipart(file_part(draw_jpeg()), boundary=boundary)
    response = post(client, body, f"multipart/form-data; boundary={boundary.decode()}")
    assert_problem(response, 400, "bad-request")
    assert "boundary is longer than 200 characters" in response.json()["detail"]


@pytest.mark.parametrize("content_type", ["image/jpeg", "application/octet-stream"])
def test_an_empty_body_is_an_empty_photo(client: Client, content_type: str) -> None:
    response = client.generic("POST", URL, CONTENT_TYPE=content_type, CONTENT_LENGTH="0")
    assert_problem(response, 422, "invalid-image")
    assert response.json()["reason"] == "empty"


def test_multipart_cut_in_the_middle(client: Client) -> None:
    body = multipart(file_part(draw_jpeg((400, 400))))
    response = post(client, body[: len(body) // 2], "multipart/form-data; boundary=b")
    assert response.status_code == 422


def test_too_many_files(client: Client, settings) -> None:
    parts = [
        file_part(b"x", str(number).encode()) for number in range(settings.DATA_UPLOAD_MAX_NUMBER_FILES + 1)
    ]
    assert_problem(post(client, multipart(*parts), "multipart/form-data; boundary=b"), 400, "bad-request")


def test_too_many_fields(client: Client, settings) -> None:
    part = b'Content-Disposition: form-data; name="a"\r\n\r\n1'
    parts = [part] * (settings.DATA_UPLOAD_MAX_NUMBER_FIELDS + 1)
    assert_problem(post(client, multipart(*parts), "multipart/form-data; boundary=b"), 400, "bad-request")


def test_too_many_query_parameters(client: Client, settings) -> None:
    query = "&".join(f"a{number}=1" for number in range(settings.DATA_UPLOAD_MAX_NUMBER_FIELDS + 1))
    assert_problem(client.get(f"{URL}?{query}"), 400, "bad-request")


def test_file_name_that_tries_to_climb(client: Client) -> None:
    part = (
        b'Content-Disposition: form-data; name="image"; filename="../../etc/passwd\x00"\r\n\r\n' + draw_jpeg()
    )
    response = post(client, multipart(part), "multipart/form-data; boundary=b")
    assert response.status_code == 201
    assert "passwd" not in Caption.objects.get().photo.file.name


@pytest.mark.parametrize(
    "content_type", ["", "text/plain", "application/x-www-form-urlencoded", "video/mp4", "x", ";"]
)
def test_unsupported_content_type_names_the_supported_ones(client: Client, content_type: str) -> None:
    response = post(client, draw_jpeg(), content_type)
    assert_problem(response, 415, "unsupported-media-type")
    supported = ["multipart/form-data", "application/json", "image/*", "application/octet-stream"]
    assert response.json()["supported"] == supported
    assert all(name in response.json()["detail"] for name in supported)
    assert response.headers["Accept"] == ", ".join(supported)


@pytest.mark.parametrize("accept", ["text/html", "application/xml", "image/jpeg", "nonsense", "", "*/*;q=0"])
def test_any_accept_header_is_answered_in_json(client: Client, accept: str) -> None:
    response = client.get(URL, headers={"Accept": accept})
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "TRACE", "BREW"])
def test_unusual_methods(client: Client, method: str) -> None:
    assert client.generic(method, URL).status_code < 500


@pytest.mark.parametrize(
    "query", ["num_beams=1&num_beams=2", "num_beams", "%ff=%ff", "a[b]=c", "&&&", "num_beams=%00"]
)
def test_odd_query_strings(client: Client, fake_engine: FakeEngine, query: str) -> None:
    assert client.generic("POST", f"{URL}?{query}", draw_jpeg(), "image/jpeg").status_code in {201, 422}


# --- Much memory for few bytes ---


@pytest.mark.parametrize(
    "body",
    [b'{"a":[' + b"{}," * 400_000 + b"{}]}", b"[" + b"1," * 10_000 + b"1]", b'{"a":' * 5000, b"[" * 20_000],
    ids=["objects", "numbers", "members", "depth"],
)
def test_json_of_many_values_is_refused_before_any_is_made(
    client: Client, fake_engine: FakeEngine, body: bytes
) -> None:
    tracemalloc.start()
    try:
        response = client.generic("POST", "/api/v1/captions", body, content_type="application/json")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert response.status_code == 400
    assert "values" in response.json()["detail"]
    assert peak < 8 * len(body) + 5_000_000


def test_small_things_have_small_limits(
    client: Client, caption: Caption, user: User, fake_engine: FakeEngine
) -> None:
    client.force_login(user)
    path = f"/api/v1/captions/{caption.pk}/feedback"
    long = json.dumps({"rating": 5, "ideal_caption": "x" * 70_000})
    assert client.generic("POST", path, long, content_type="application/json").status_code == 413
    form = "a=1&" * 300_000
    for where in ("/login", path, "/api/v1/models/rollback", "/admin/login/"):
        response = client.generic("POST", where, form, content_type="application/x-www-form-urlencoded")
        assert response.status_code == 413, where


def test_a_photo_in_json_may_be_broken_into_lines_and_begin_with_a_mark(
    client: Client, fake_engine: FakeEngine, photo_bytes: bytes
) -> None:
    letters = base64.b64encode(photo_bytes).decode()
    lines = "\r\n".join(letters[at : at + 2] for at in range(0, len(letters), 2))
    body = "\N{ZERO WIDTH NO-BREAK SPACE}" + json.dumps({"image_base64": lines})
    response = client.generic("POST", "/api/v1/captions", body.encode(), content_type="application/json")
    assert response.status_code == 201
    hidden = json.dumps({"image_base64": letters}).encode("utf-16")
    assert (
        client.generic(
            "POST", "/api/v1/captions", hidden, content_type="application/json; charset=utf-16"
        ).status_code
        == 400
    )


@pytest.mark.parametrize("disposition", [b'name="image"', b'name="image"; filename=""'])
@pytest.mark.parametrize("url", [URL, "/api/v1/jobs"])
def test_a_part_without_a_file_name_is_told_so(client: Client, url: str, disposition: bytes) -> None:
    part = (
        b"Content-Disposition: form-data; "
        + disposition
        + b"\r\nContent-Type: image/jpeg\r\n\r\n"
        + draw_jpeg()
    )
    body = multipart(part)
    response = client.generic("POST", url, body, content_type="multipart/form-data; boundary=b")
    assert response.status_code == 422
    assert "no file name" in response.json()["detail"]
