"""Photos are stored once each, without metadata, for as long as a caption shows them."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.core.files.storage import default_storage
from django.utils import timezone

from captioner.captions.photos import photos_sweep
from captioner.models import Owner, Photo
from tests.captioner.captions.test_captions import create, stored_files
from tests.conftest import FakeEngine, draw_jpeg

pytestmark = pytest.mark.django_db


def test_the_same_photo_is_stored_once(fake_engine: FakeEngine, visitor: Owner, user: User) -> None:
    first, second = create(draw_jpeg(), visitor), create(draw_jpeg(), Owner(user=user))
    assert first.photo == second.photo
    assert Photo.objects.count() == 1
    assert stored_files() == [first.photo.file.name]


def test_what_is_stored_is_a_clean_jpeg_of_the_photo(fake_engine: FakeEngine, visitor: Owner) -> None:
    photo = create(draw_jpeg((64, 48)), visitor).photo
    with default_storage.open(photo.file.name) as file:
        content = file.read()
    assert content.startswith(b"\xff\xd8\xff")
    assert b"Exif" not in content
    assert (photo.width, photo.height) == (64, 48)


def test_a_photo_whose_file_was_lost_is_stored_again(fake_engine: FakeEngine, visitor: Owner) -> None:
    photo = create(draw_jpeg(), visitor).photo
    default_storage.delete(photo.file.name)
    create(draw_jpeg(), visitor)
    assert stored_files() == [photo.file.name]


def test_the_sweep_removes_only_old_photos_that_no_caption_shows(
    fake_engine: FakeEngine, visitor: Owner, user: User
) -> None:
    kept = create(draw_jpeg(colour="red"), visitor).photo
    create(draw_jpeg(colour="blue"), Owner(user=user))
    user.delete()
    assert photos_sweep() == 0, "a young one may be waiting for its caption"
    Photo.objects.update(created_at=timezone.now() - timedelta(days=1))
    assert photos_sweep() == 1
    assert list(Photo.objects.all()) == [kept]
    assert stored_files() == [kept.file.name]
