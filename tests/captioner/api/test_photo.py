"""GET /api/v1/captions/{id}/photo"""

import io

import pytest
from django.contrib.auth.models import User
from django.core.files.storage import default_storage
from django.test import Client
from PIL import Image

from captioner.models import Caption


@pytest.fixture
def ada(client: Client, user: User) -> Client:
    client.force_login(user)
    return client


def url(caption: Caption) -> str:
    return f"/api/v1/captions/{caption.pk}/photo"


def test_is_the_stored_jpeg(ada: Client, caption: Caption) -> None:
    response = ada.get(url(caption))
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "image/jpeg"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    with Image.open(io.BytesIO(b"".join(response.streaming_content))) as image:
        assert (image.format, image.size) == ("JPEG", (64, 48))


def test_browser_keeps_it_but_asks_again(ada: Client, caption: Caption) -> None:
    response = ada.get(url(caption))
    response.getvalue()  # to its end, as a browser would
    assert response.headers["Cache-Control"] == "private, no-cache"
    again = ada.get(url(caption), headers={"If-None-Match": response.headers["ETag"]})
    assert again.status_code == 304
    assert again.headers["ETag"] == response.headers["ETag"]
    assert again.content == b""


@pytest.mark.parametrize("accept", ["image/jpeg", "image/*", "text/html", "*/*"])
def test_any_accept_header_gets_the_photo(ada: Client, caption: Caption, accept: str) -> None:
    response = ada.get(url(caption), headers={"Accept": accept})
    response.getvalue()  # to its end, as a browser would
    assert response.status_code == 200


def test_lost_file_is_not_found(ada: Client, caption: Caption) -> None:
    default_storage.delete(caption.photo.file.name)
    response = ada.get(url(caption))
    assert response.status_code == 404
    assert response.headers["Content-Type"] == "application/problem+json"
