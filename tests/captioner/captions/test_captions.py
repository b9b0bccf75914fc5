"""A caption is made, logged with how it came about, seen by its owner only, and deleted."""

import uuid
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.files.storage import default_storage
from django.db import IntegrityError, transaction

from captioner.captions.api_keys import api_key_create
from captioner.captions.captions import caption_create, caption_delete
from captioner.captions.feedback import feedback_submit
from captioner.exceptions import ClientGone, DeadlineExceeded, InvalidImage, Overloaded
from captioner.inference.types import DecodingParameters
from captioner.models import Caption, Feedback, Owner, Photo
from tests.conftest import FakeEngine, draw_jpeg

pytestmark = pytest.mark.django_db


def create(data: bytes, owner: Owner, **options) -> Caption:
    return caption_create(data, owner=owner, source=Caption.Source.API, **options)


def test_a_caption_is_logged_with_how_it_came_about(fake_engine: FakeEngine, visitor: Owner) -> None:
    caption = create(draw_jpeg((64, 48)), visitor, parameters=DecodingParameters(num_captions=2, num_beams=3))
    caption.refresh_from_db()
    assert caption.text == "a 64 by 48 photo"
    assert caption.alternatives == [{"caption": "a 64 by 48 photo number 1", "confidence": None}]
    assert caption.words == [{"text": "a", "probability": 0.9}, {"text": "photo", "probability": 0.4}]
    assert caption.token_log_probabilities == [-0.1, -0.9]
    assert (caption.model_name, caption.model_version) == ("fake", "fake-1")
    assert caption.decoding["num_beams"] == 3
    assert caption.timings_ms.keys() == {"decode", "queue", "inference", "total"}
    assert caption.batch_size == 1
    assert (caption.visitor, caption.user, caption.confidence) == (visitor.visitor, None, None)


def test_a_calibrated_confidence_is_logged(fake_engine: FakeEngine, visitor: Owner) -> None:
    fake_engine.confidence = 0.31234
    caption = create(draw_jpeg(), visitor, parameters=DecodingParameters(num_captions=2, num_beams=2))
    assert caption.confidence == 0.312
    assert caption.alternatives[0]["confidence"] == 0.312


def test_the_model_versions_own_parameters_are_the_default(fake_engine: FakeEngine, visitor: Owner) -> None:
    create(draw_jpeg(), visitor)
    assert fake_engine.submitted == [FakeEngine.default_parameters]


def test_a_refused_photo_leaves_nothing_behind(fake_engine: FakeEngine, visitor: Owner) -> None:
    fake_engine.error = Overloaded("busy", retry_after=2.5)
    with pytest.raises(Overloaded):
        create(draw_jpeg(), visitor)
    with pytest.raises(InvalidImage):
        create(b"not a photo", visitor)
    assert (Caption.objects.count(), Photo.objects.count(), stored_files()) == (0, 0, [])


def test_a_photo_there_is_no_room_for_is_refused_before_it_is_decoded(
    fake_engine: FakeEngine, visitor: Owner
) -> None:
    fake_engine.full = Overloaded("busy", retry_after=2.5)
    with pytest.raises(Overloaded):
        create(b"not a photo, which nobody looked at", visitor)


def test_work_is_dropped_when_the_client_goes_away(fake_engine: FakeEngine, visitor: Owner) -> None:
    fake_engine.never_answers = True
    with pytest.raises(ClientGone):
        create(draw_jpeg(), visitor, is_abandoned=lambda: True)
    assert Caption.objects.count() == 0


def test_a_model_that_never_answers_costs_the_deadline_only(
    fake_engine: FakeEngine, visitor: Owner, settings
) -> None:
    fake_engine.never_answers = True
    settings.CAPTION_TIMEOUT_SECONDS = 0
    with pytest.raises(DeadlineExceeded, match="within 0 seconds"):
        create(draw_jpeg(), visitor)


def stored_files() -> list[str]:
    root = Path(default_storage.location)
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def test_each_person_sees_only_their_own(fake_engine: FakeEngine, user: User, other_user: User) -> None:
    key, _ = api_key_create(user, "script")
    owners = {
        "user": Owner(user=user),
        "key": Owner(api_key=key),
        "other": Owner(user=other_user),
        "visitor": Owner(visitor=uuid.uuid4()),
        "stranger": Owner(visitor=uuid.uuid4()),
    }
    made = {name: create(draw_jpeg(), owner) for name, owner in owners.items()}
    seen = {name: set(Caption.objects.owned_by(owner)) for name, owner in owners.items()}
    assert seen.pop("user") == {made["user"], made["key"]}, "a user also sees what their keys made"
    assert seen == {name: {made[name]} for name in seen}


def test_an_owner_is_exactly_one_kind(user: User) -> None:
    for parts in ({}, {"user": user, "visitor": uuid.uuid4()}):
        with pytest.raises(ValueError, match="exactly one"):
            Owner(**parts)


def test_the_database_refuses_a_caption_without_an_owner(caption: Caption) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        Caption.objects.filter(pk=caption.pk).update(user=None)


def test_deleting_a_caption_deletes_its_photo_with_the_last_one(
    fake_engine: FakeEngine, visitor: Owner, user: User
) -> None:
    first, second = create(draw_jpeg(), visitor), create(draw_jpeg(), Owner(user=user))
    feedback_submit(first, rating=3)
    caption_delete(first)
    assert (Feedback.objects.count(), Photo.objects.count(), len(stored_files())) == (0, 1, 1)
    caption_delete(second)
    assert (Photo.objects.count(), stored_files()) == (0, [])


def test_deleting_what_was_just_deleted_is_no_error(caption: Caption) -> None:
    twin = Caption.objects.get(pk=caption.pk)
    caption_delete(caption)
    caption_delete(twin)
    assert not Photo.objects.exists()


def test_rating_what_was_just_deleted_is_told_apart(caption: Caption) -> None:
    Caption.objects.all().delete()
    with pytest.raises(Caption.DoesNotExist):
        feedback_submit(caption, rating=3)
