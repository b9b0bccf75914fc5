"""DELETE /api/v1/captions/{id}"""

import pytest
from django.contrib.auth.models import User
from django.core.files.storage import default_storage
from django.test import Client

from captioner.captions.captions import caption_create
from captioner.captions.feedback import feedback_submit
from captioner.models import Caption, Feedback, Owner, Photo
from tests.conftest import FakeEngine

URL = "/api/v1/captions"


@pytest.fixture
def ada(client: Client, user: User) -> Client:
    client.force_login(user)
    return client


def test_row_feedback_and_photo_are_gone(ada: Client, caption: Caption) -> None:
    feedback_submit(caption, rating=5)
    response = ada.delete(f"{URL}/{caption.pk}")
    assert response.status_code == 204
    assert response.content == b""
    assert not Caption.objects.exists()
    assert not Feedback.objects.exists()
    assert not Photo.objects.exists()
    assert not default_storage.exists(caption.photo.file.name)


def test_photo_stays_while_somebody_else_shows_it(
    ada: Client, caption: Caption, other_user: User, photo_bytes: bytes, fake_engine: FakeEngine
) -> None:
    caption_create(photo_bytes, owner=Owner(user=other_user), source=Caption.Source.API)
    ada.delete(f"{URL}/{caption.pk}")
    assert Caption.objects.get().user == other_user
    assert default_storage.exists(caption.photo.file.name)


def test_second_time_is_not_found(ada: Client, caption: Caption) -> None:
    ada.delete(f"{URL}/{caption.pk}")
    assert ada.delete(f"{URL}/{caption.pk}").status_code == 404
