"""What is deleted in the admin, many at once."""

import pytest
from django.contrib.auth.models import User
from django.core.files.storage import default_storage
from django.test import Client

from captioner.models import Caption, Feedback, Owner, Photo
from tests.webui.pages import make_captions, text

pytestmark = pytest.mark.django_db


def test_many_captions_are_counted_and_deleted_with_their_photo(
    client: Client, reviewer: User, user: User, fake_engine: object, django_assert_max_num_queries
) -> None:
    captions = make_captions(Owner(user=user), 300)
    Feedback.objects.create(caption=captions[7], ideal_caption="secret words")
    [photo] = Photo.objects.all()
    client.force_login(reviewer)
    kept = captions[0]
    fields = {"action": "delete_selected", "_selected_action": [each.pk for each in captions[1:]]}
    page = text(client.post("/admin/captioner/caption/", fields))
    assert "299" in page
    assert "secret words" not in page
    assert len(page) < 60_000 + 299 * 100, "no list of them"
    with django_assert_max_num_queries(120):
        client.post("/admin/captioner/caption/", fields | {"post": "yes"})
    assert [caption.pk for caption in Caption.objects.all()] == [kept.pk]
    assert default_storage.exists(str(photo.file.name)), "one still shows it"
    client.post("/admin/captioner/caption/", fields | {"_selected_action": [kept.pk], "post": "yes"})
    assert not Photo.objects.exists()
    assert not default_storage.exists(str(photo.file.name))
