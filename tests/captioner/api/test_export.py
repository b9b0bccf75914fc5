"""`/api/v1/captions/export`, thumbnails and what else the pages can do, for programs."""

import io
import json

import pytest
from django.contrib.auth.models import User
from django.core.files.storage import default_storage
from django.test import Client
from PIL import Image

from captioner.captions.captions import caption_create, caption_delete
from captioner.captions.exports import EXPORT_FORMATS
from captioner.captions.feedback import feedback_submit
from captioner.models import Caption, Owner
from tests.conftest import FakeEngine
from tests.photos import detailed_image, draw_photo, jpeg_bytes

URL = "/api/v1/captions"


@pytest.fixture
def client(client: Client, user: User) -> Client:
    client.force_login(user)
    return client


def exported(client: Client, **query) -> str:
    response = client.get(f"{URL}/export", query)
    assert response.status_code == 200
    assert response["Cache-Control"] == "private, no-cache"
    return b"".join(response.streaming_content).decode()


def test_what_was_corrected_is_the_caption_for_programs_too(client: Client, caption: Caption) -> None:
    feedback_submit(caption, ideal_caption="my wall")
    answer = client.get(f"{URL}/{caption.pk}").json()
    assert (answer["caption"], answer["machine_caption"]) == ("my wall", "a 64 by 48 photo")
    assert (answer["source"], answer["words"], answer["confidence"]) == ("person", [], None)
    [row] = json.loads(exported(client, format="json"))
    assert (row["caption"], row["machine_caption"]) == ("my wall", "a 64 by 48 photo")


@pytest.mark.parametrize("wanted", EXPORT_FORMATS)
def test_each_format_is_a_file_of_its_type(client: Client, caption: Caption, wanted: str) -> None:
    response = client.get(f"{URL}/export?format={wanted}")
    form = EXPORT_FORMATS[wanted]
    assert response["Content-Type"] == form.media_type
    assert f'filename="captions.{form.suffix}"' in response["Content-Disposition"]
    assert "a 64 by 48 photo" in b"".join(response.streaming_content).decode()


def test_filters_and_a_selection_say_which(client: Client, caption: Caption, other_user: User) -> None:
    theirs = caption_create(draw_photo(1), owner=Owner(user=other_user), source=Caption.Source.WEB)
    own = caption_create(draw_photo(2), owner=Owner(user=caption.user), source=Caption.Source.API)
    ids = f"{own.pk},{theirs.pk}"
    assert [row["caption_id"] for row in json.loads(exported(client, format="json", ids=ids))] == [
        str(own.pk)
    ]
    assert len(json.loads(exported(client, format="json", search="64"))) == 1
    assert exported(client, bom="true").startswith("\ufeff")


@pytest.mark.parametrize("query", ["format=xml", "bom=perhaps", "ids=x", "job=x", "looked_at=x"])
def test_what_there_is_not_is_named(client: Client, caption: Caption, query: str) -> None:
    response = client.get(f"{URL}/export?{query}")
    if query != "looked_at=x":  # what is neither true nor false filters nothing, as the library has it
        assert response.status_code == 422
        assert query.split("=")[0] in response.json()["detail"]


def test_what_was_looked_at_is_a_filter(client: Client, caption: Caption) -> None:
    assert len(client.get(f"{URL}?looked_at=false").json()["results"]) == 1
    feedback_submit(caption, rating=3)
    assert client.get(f"{URL}?looked_at=false").json()["results"] == []
    assert len(client.get(f"{URL}?looked_at=true").json()["results"]) == 1


def test_a_photo_is_said_to_be_decorative(client: Client, caption: Caption, other_user: User) -> None:
    def patch(body: str):
        return client.patch(f"{URL}/{caption.pk}", body, content_type="application/json")

    assert patch('{"decorative": true}').json()["decorative"] is True
    assert 'alt=""' in exported(client, format="html")
    assert patch("{}").status_code == 422
    assert patch('{"decorative": "so so"}').status_code == 422
    client.force_login(other_user)
    assert patch('{"decorative": false}').status_code == 404
    assert Caption.objects.get().is_decorative


# --- Thumbnails ---


def test_a_thumbnail_is_small_made_once_and_goes_with_the_photo(
    client: Client, user: User, fake_engine: FakeEngine
) -> None:
    photo = jpeg_bytes(detailed_image(1, (1280, 960)))
    caption = caption_create(photo, owner=Owner(user=user), source=Caption.Source.WEB)
    address = client.get(f"{URL}/{caption.pk}").json()["links"]["thumbnail"]
    response = client.get(address)
    data = b"".join(response.streaming_content)
    assert (response["Content-Type"], Image.open(io.BytesIO(data)).size) == ("image/webp", (320, 240))
    assert 24 * len(data) < 400_000, "a page of 24"
    assert b"".join(client.get(address).streaming_content) == data
    assert client.get(address, headers={"If-None-Match": response["ETag"]}).status_code == 304
    folder = caption.photo.sha256[:2]
    assert len(default_storage.listdir(folder)[1]) == 2
    caption_delete(caption)
    assert default_storage.listdir(folder)[1] == []
    assert client.get(address).status_code == 404


def test_strangers_and_lost_photos_have_no_thumbnail(
    client: Client, caption: Caption, other_user: User
) -> None:
    default_storage.delete(caption.photo.file.name)
    assert client.get(f"{URL}/{caption.pk}/thumbnail").status_code == 404
    client.force_login(other_user)
    assert client.get(f"{URL}/{caption.pk}/thumbnail").status_code == 404
