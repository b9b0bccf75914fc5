import uuid
from datetime import timedelta
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.files.storage import default_storage
from django.db import IntegrityError, transaction
from django.utils import timezone

from captioner.captions.accounts import administrator_ensure
from captioner.captions.api_keys import api_key_create, api_key_find
from captioner.captions.captions import caption_create, caption_delete
from captioner.captions.feedback import feedback_review, feedback_submit
from captioner.captions.photos import photos_sweep
from captioner.exceptions import ClientGone, DeadlineExceeded, InvalidFeedback, InvalidImage, Overloaded
from captioner.inference.types import DecodingParameters
from captioner.models import Caption, Feedback, Owner, Photo
from tests.conftest import FakeEngine, draw_jpeg

pytestmark = pytest.mark.django_db


def create(data: bytes, owner: Owner, **options) -> Caption:
    return caption_create(data, owner=owner, source=Caption.Source.API, **options)


# --- Captions ---


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


def test_a_refused_photo_leaves_nothing_behind(fake_engine: FakeEngine, visitor: Owner) -> None:
    fake_engine.error = Overloaded("busy", retry_after=2.5)
    with pytest.raises(Overloaded):
        create(draw_jpeg(), visitor)
    with pytest.raises(InvalidImage):
        create(b"not a photo", visitor)
    assert (Caption.objects.count(), Photo.objects.count(), stored_files()) == (0, 0, [])


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


def test_a_photo_whose_file_was_lost_is_stored_again(fake_engine: FakeEngine, visitor: Owner) -> None:
    photo = create(draw_jpeg(), visitor).photo
    default_storage.delete(photo.file.name)
    create(draw_jpeg(), visitor)
    assert stored_files() == [photo.file.name]


# --- Owners ---


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


# --- Deleting ---


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


# --- Feedback ---


def test_feedback_waits_for_review(caption: Caption) -> None:
    feedback, _ = feedback_submit(caption, rating=4, ideal_caption="  a teal\n square ")
    assert (feedback.rating, feedback.ideal_caption, feedback.status) == (4, "a teal square", "pending")


def test_saying_it_again_replaces_it_and_asks_for_a_new_review(caption: Caption, reviewer: User) -> None:
    feedback_submit(caption, rating=4)
    feedback_review(Feedback.objects.all(), Feedback.Status.APPROVED, reviewer=reviewer)
    feedback_submit(caption, rating=9)
    feedback = Feedback.objects.get()
    assert (feedback.rating, feedback.status, feedback.reviewed_by, feedback.reviewed_at) == (
        9,
        "pending",
        None,
        None,
    )


@pytest.mark.parametrize(
    ("given", "field", "complaint"),
    [
        ({}, "rating", "a rating from 1 to 10, a better caption, or both"),
        ({"ideal_caption": " \n "}, "rating", "a better caption"),
        ({"rating": 0}, "rating", "from 1 to 10, not 0"),
        ({"rating": 11}, "rating", "from 1 to 10, not 11"),
        ({"ideal_caption": "x" * 501}, "ideal_caption", "has 501 characters; at most 500"),
    ],
)
def test_feedback_that_says_nothing_or_too_much_is_refused(
    caption: Caption, given: dict, field: str, complaint: str
) -> None:
    with pytest.raises(InvalidFeedback, match=complaint) as caught:
        feedback_submit(caption, **given)
    assert caught.value.field == field
    assert not Feedback.objects.exists()


def test_a_review_records_who_and_when_and_counts_what_changed(caption: Caption, reviewer: User) -> None:
    feedback_submit(caption, rating=4)
    before = timezone.now()
    assert feedback_review(Feedback.objects.all(), Feedback.Status.REJECTED, reviewer=reviewer) == 1
    assert feedback_review(Feedback.objects.all(), Feedback.Status.REJECTED, reviewer=reviewer) == 0
    feedback = Feedback.objects.get()
    assert (feedback.status, feedback.reviewed_by) == ("rejected", reviewer)
    assert before <= feedback.reviewed_at <= timezone.now()


# --- Keys and administrators ---


def test_an_api_key_is_found_by_its_secret_only(user: User) -> None:
    key, secret = api_key_create(user, "script")
    assert api_key_find(secret) == key
    assert api_key_find(secret + "x") is None
    assert secret not in str(vars(key))


def test_a_revoked_key_or_one_of_an_inactive_user_is_not_found(user: User) -> None:
    key, secret = api_key_create(user, "script")
    User.objects.update(is_active=False)
    assert api_key_find(secret) is None
    User.objects.update(is_active=True)
    key.revoked_at = timezone.now()
    key.save()
    assert api_key_find(secret) is None


def test_the_first_administrator_gets_a_password_once(client) -> None:
    password = administrator_ensure()
    assert client.login(username="admin", password=password)
    assert administrator_ensure() is None
