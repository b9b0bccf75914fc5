"""Approved corrections answer when their photo comes again, and are forgotten the moment they are deleted."""

import io
import uuid
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from PIL import Image
from pytest_django import DjangoAssertNumQueries, Settings

from captioner.captions import memory as memories
from captioner.captions.api_keys import api_key_create
from captioner.captions.captions import caption_create, caption_delete, captions_create
from captioner.captions.feedback import feedback_review, feedback_submit
from captioner.captions.memory import Memory, memory
from captioner.captions.vectors import photos_look
from captioner.models import Caption, Feedback, Owner, PhotoVector
from captioner.serving.follower import MemoryFollower
from captioner.serving.process import Serving, serving
from tests.conftest import FakeEngine
from tests.photos import draw_scene, jpeg_bytes, scene_image

pytestmark = pytest.mark.django_db
WEB = Caption.Source.WEB


@pytest.fixture(autouse=True)
def _impatient(fake_engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look looks, at an engine whose encoder gives vectors."""
    fake_engine.encoder = "fake-eye"
    monkeypatch.setattr(memories, "_LOOK_SECONDS", 0.0)
    memory.clear()


def ask(data: bytes, owner: Owner) -> Caption:
    memory.look(["fake-eye"])  # as a thread of the process does every second
    return caption_create(data, owner=owner, source=WEB)


def teach(data: bytes, owner: Owner, said: str, reviewer: User) -> Feedback:
    feedback, _ = feedback_submit(ask(data, owner), ideal_caption=said)
    feedback_review(Feedback.objects.filter(pk=feedback.pk), Feedback.Status.APPROVED, reviewer=reviewer)
    return feedback


def changed(number: int, *, scale: float = 1.0, quality: int = 92, cut: float = 0.0) -> bytes:
    image = scene_image(number)
    width, height = image.size
    image = image.crop((cut * width, cut * height, (1 - cut) * width, (1 - cut) * height))
    return jpeg_bytes(image.resize((int(scale * width), int(scale * height))), quality=quality)


@pytest.mark.parametrize(
    "again",
    [draw_scene(1), changed(1, quality=60), changed(1, scale=3, quality=50), changed(1, cut=0.02)],
    ids=["the same file", "encoded again", "enlarged", "cut"],
)
def test_the_same_photo_again_gets_the_approved_caption_with_the_models_own_beside_it(
    visitor: Owner, reviewer: User, again: bytes
) -> None:
    feedback = teach(draw_scene(1), visitor, "a quilt of our grandmother", reviewer)
    caption = ask(again, visitor)
    assert (caption.origin, caption.recalled, caption.is_remembered) == ("memory", feedback, True)
    assert caption.final_text == "a quilt of our grandmother"
    width, height = Image.open(io.BytesIO(again)).size
    assert caption.text == f"a {width} by {height} photo"


def test_another_photo_does_not(visitor: Owner, reviewer: User) -> None:
    teach(draw_scene(1), visitor, "a quilt of our grandmother", reviewer)
    caption = ask(draw_scene(2), visitor)
    assert (caption.origin, caption.recalled, caption.final_text) == ("model", None, caption.text)


def test_photos_of_a_plain_ground_are_told_apart_though_their_hashes_agree(
    visitor: Owner, reviewer: User
) -> None:
    def thing(place: int, colour: str) -> bytes:
        image = Image.new("RGB", (96, 96), "white")
        image.paste(colour, (place, 40, place + 12, 52))
        return jpeg_bytes(image)

    teach(thing(10, "red"), visitor, "a red button", reviewer)
    assert ask(thing(70, "blue"), visitor).origin == "model"
    assert ask(thing(10, "red"), visitor).origin == "memory"


def test_nobody_is_answered_with_what_waits_for_review_or_was_rejected_or_is_a_rating(
    visitor: Owner, reviewer: User
) -> None:
    feedback, _ = feedback_submit(ask(draw_scene(1), visitor), ideal_caption="a rude word")
    assert ask(draw_scene(1), visitor).origin == "model"
    feedback_review(Feedback.objects.filter(pk=feedback.pk), Feedback.Status.REJECTED, reviewer=reviewer)
    rated, _ = feedback_submit(ask(draw_scene(1), visitor), rating=9)
    feedback_review(Feedback.objects.filter(pk=rated.pk), Feedback.Status.APPROVED, reviewer=reviewer)
    assert ask(draw_scene(1), visitor).origin == "model"


@pytest.mark.parametrize("how", ["feedback", "caption", "rejection", "rewriting"])
def test_what_is_deleted_rejected_or_rewritten_is_forgotten_at_once(
    visitor: Owner, reviewer: User, how: str
) -> None:
    feedback = teach(draw_scene(1), visitor, "a quilt of our grandmother", reviewer)
    answered = ask(draw_scene(1), visitor)
    if how == "feedback":
        feedback.delete()
    elif how == "caption":
        caption_delete(feedback.caption)
    elif how == "rejection":
        feedback_review(Feedback.objects.filter(pk=feedback.pk), Feedback.Status.REJECTED, reviewer=reviewer)
    else:
        feedback_submit(feedback.caption, ideal_caption="something else")
    # Without another look of any process, and in captions that were answered with it as well.
    assert caption_create(draw_scene(1), owner=visitor, source=WEB).origin == "model"
    answered = Caption.objects.with_details().get(pk=answered.pk)
    assert (answered.origin, answered.is_remembered, answered.final_text) == ("memory", False, answered.text)


def test_what_was_answered_never_turns_into_what_is_said_later(visitor: Owner, reviewer: User) -> None:
    feedback = teach(draw_scene(1), visitor, "a quilt of our grandmother", reviewer)
    answered = ask(draw_scene(1), visitor)
    feedback_submit(feedback.caption, ideal_caption="a flag of our grandmother")
    feedback_review(Feedback.objects.filter(pk=feedback.pk), Feedback.Status.APPROVED, reviewer=reviewer)
    answered = Caption.objects.with_details().get(pk=answered.pk)
    assert (answered.origin, answered.final_text) == ("memory", answered.text)
    assert ask(draw_scene(1), visitor).final_text == "a flag of our grandmother"


def test_a_photo_that_could_not_be_read_is_remembered_once_it_comes_again(
    visitor: Owner, reviewer: User
) -> None:
    feedback = teach(draw_scene(1), visitor, "a quilt of our grandmother", reviewer)
    PhotoVector.objects.filter(photo=feedback.caption.photo).update(vector=b"")
    memory.clear()
    assert ask(draw_scene(1), visitor).origin == "model"
    memory.clear()
    assert ask(draw_scene(1), visitor).origin == "memory"


def test_only_the_encoder_that_serves_is_waited_for(visitor: Owner, reviewer: User) -> None:
    teach(draw_scene(1), visitor, "a quilt of our grandmother", reviewer)
    assert memory.look(["fake-eye", "the eye before"]) == 0
    assert memory.alerts == []
    memory.clear()
    assert memory.look(["a new eye", "fake-eye"]) == 1
    assert len(memory.alerts) == 1


def test_a_photo_is_deleted_with_what_the_encoder_saw_of_it(visitor: Owner) -> None:
    caption = ask(draw_scene(1), visitor)
    assert PhotoVector.objects.get().photo == caption.photo
    caption_delete(caption)
    assert not PhotoVector.objects.exists()


def test_what_was_deleted_while_the_photo_was_captioned_is_no_answer(
    visitor: Owner, reviewer: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    feedback = teach(draw_scene(1), visitor, "a quilt of our grandmother", reviewer)
    recall = memories.photo_recall

    def recall_then_delete(*arguments: object) -> object:
        recollection = recall(*arguments)
        Feedback.objects.filter(pk=feedback.pk).delete()
        return recollection

    monkeypatch.setattr("captioner.captions.captions.photo_recall", recall_then_delete)
    caption = ask(draw_scene(1), visitor)
    assert (caption.origin, caption.recalled) == ("model", None)


def test_one_that_goes_while_another_comes_is_noticed_though_there_are_as_many(
    visitor: Owner, reviewer: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other was approved by a machine whose clock is slow by more than is looked back."""
    first = teach(draw_scene(1), visitor, "a quilt of our grandmother", reviewer)
    memory.look(["fake-eye"])
    second = teach(draw_scene(2), visitor, "a photo of the harbour", reviewer)
    Feedback.objects.filter(pk=second.pk).update(reviewed_at=timezone.now() - timedelta(hours=1))
    first.delete()
    monkeypatch.setattr(memories, "_RECONCILE_SECONDS", 0.0)
    assert ask(draw_scene(2), visitor).final_text == "a photo of the harbour"
    assert memory.index("fake-eye").numbers == {second.pk}


def test_a_photo_that_was_lost_and_is_there_again_is_listed(
    visitor: Owner, reviewer: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    feedback = teach(draw_scene(1), visitor, "a quilt of our grandmother", reviewer)
    seen = PhotoVector.objects.get(photo=feedback.caption.photo)
    vector, seen.vector = bytes(seen.vector), b""
    seen.save()
    monkeypatch.setattr(memories, "_RECONCILE_SECONDS", 0.0)
    memory.look(["fake-eye"])
    assert len(memory.index("fake-eye")) == 0
    seen.vector = vector
    seen.save()
    assert ask(draw_scene(1), visitor).origin == "memory"


def test_it_is_noticed_by_every_process_within_a_look(visitor: Owner, reviewer: User) -> None:
    processes = [Memory(), Memory()]
    for process in processes:
        assert process.look(["fake-eye"]) == 0
    feedback = teach(draw_scene(1), visitor, "a quilt of our grandmother", reviewer)
    for process in processes:
        process.look(["fake-eye"])
        assert process.index("fake-eye").numbers == {feedback.pk}
        assert process.index("another") is None


def test_everything_is_compared_now_and_then(
    visitor: Owner, reviewer: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    feedback = teach(draw_scene(1), visitor, "a quilt of our grandmother", reviewer)
    kept = teach(draw_scene(2), visitor, "a flag", reviewer)
    memory.look(["fake-eye"])
    feedback.delete()
    monkeypatch.setattr(memories, "_RECONCILE_SECONDS", 0.0)
    memory.look(["fake-eye"])
    assert memory.index("fake-eye").numbers == {kept.pk}


# --- Whose it is ---


def test_of_an_owner_only_their_own_corrections_answer(
    user: User, other_user: User, visitor: Owner, reviewer: User, settings: Settings
) -> None:
    settings.MEMORY_SCOPE = "owner"
    key, _ = api_key_create(user, "shop")
    teach(draw_scene(1), Owner(user=user), "a quilt of our grandmother", reviewer)
    teach(draw_scene(2), Owner(api_key=key), "a flag", reviewer)
    teach(draw_scene(3), visitor, "a window", reviewer)
    strangers = [Owner(user=other_user), Owner(visitor=uuid.uuid4())]
    for owner in strangers:
        assert [ask(draw_scene(number), owner).origin for number in (1, 2, 3)] == ["model"] * 3
    # A key sees what it made; its user sees that as well.
    assert [ask(draw_scene(n), Owner(user=user)).origin for n in (1, 2)] == ["memory"] * 2
    assert [ask(draw_scene(n), Owner(api_key=key)).origin for n in (1, 2)] == ["model", "memory"]
    assert ask(draw_scene(3), visitor).origin == "memory"


def test_the_end_users_of_a_key_are_strangers_to_each_other(
    user: User, reviewer: User, settings: Settings
) -> None:
    settings.MEMORY_SCOPE = "owner"
    key, _ = api_key_create(user, "shop")
    teach(draw_scene(1), Owner(api_key=key, end_user="ann"), "a quilt of our grandmother", reviewer)
    for end_user, origin in (("ann", "memory"), ("ben", "model"), ("", "model")):
        assert ask(draw_scene(1), Owner(api_key=key, end_user=end_user)).origin == origin
    assert ask(draw_scene(1), Owner(user=user)).origin == "memory"


def test_of_an_installation_everybodys_do_ones_own_first(
    user: User, other_user: User, reviewer: User, settings: Settings
) -> None:
    settings.MEMORY_SCOPE = "installation"
    teach(draw_scene(1), Owner(user=user), "a quilt of our grandmother", reviewer)
    assert ask(draw_scene(1), Owner(user=other_user)).final_text == "a quilt of our grandmother"
    teach(draw_scene(1), Owner(user=other_user), "a blanket or quilt", reviewer)
    assert ask(draw_scene(1), Owner(user=user)).final_text == "a quilt of our grandmother"
    assert ask(draw_scene(1), Owner(visitor=uuid.uuid4())).final_text == "a blanket or quilt"


def test_it_can_be_switched_off(visitor: Owner, reviewer: User, settings: Settings) -> None:
    teach(draw_scene(1), visitor, "a quilt of our grandmother", reviewer)
    settings.MEMORY_SCOPE = "off"
    assert ask(draw_scene(1), visitor).origin == "model"
    ask(draw_scene(2), visitor)
    assert PhotoVector.objects.count() == 1


# --- Photos like it ---


def alike(seed: int) -> bytes:
    """Like the other seeds to the fake eye, and to no hash the same photo."""
    image = scene_image("a common ground").resize((96, 72))
    return jpeg_bytes(Image.blend(image, scene_image(seed), 0.45), quality=92)


def test_photos_like_it_speak_for_what_the_model_also_found(
    visitor: Owner, reviewer: User, fake_engine: FakeEngine
) -> None:
    fake_engine.beams = ("a bowl of soup", "a cup of tea on a table")
    for seed in range(4):
        teach(alike(seed), visitor, f"a cup of tea on table {seed}", reviewer)
    caption = ask(alike(9), visitor)
    assert (caption.origin, caption.text, caption.beam_rank) == ("model", "a cup of tea on a table", 2)
    # What they were called comes out only where the model wrote it.
    assert caption.text not in Feedback.objects.values_list("ideal_caption", flat=True)
    assert ask(draw_scene(5), visitor).beam_rank == 0


# --- Photos that the encoder has yet to see ---


def test_photos_of_another_encoder_are_looked_at_again_with_progress(
    visitor: Owner,
    reviewer: User,
    fake_engine: FakeEngine,
    monkeypatch: pytest.MonkeyPatch,
    settings: Settings,
) -> None:
    settings.CAPTION_MAX_BATCH = 2
    monkeypatch.setattr(memories, "_PROGRESS_SECONDS", 0.0)
    monkeypatch.setattr(serving, "refresh", lambda **_: fake_engine)
    for number in range(3):
        teach(draw_scene(number), visitor, f"quilt {number}", reviewer)
    fake_engine.encoder = "new-eye"
    assert memory.look(["new-eye"]) == 3
    assert memory.alerts == [
        "3 of 3 remembered photos are yet to be looked at with the encoder that serves; workers are at it."
    ]
    assert caption_create(draw_scene(0), owner=visitor, source=WEB).origin == "model"
    assert photos_look(seconds=0.0) == 0  # of nothing that it had no time for
    assert photos_look() == 0
    assert (memory.look(["new-eye"]), memory.alerts) == (0, [])
    assert [caption_create(draw_scene(n), owner=visitor, source=WEB).final_text for n in range(3)] == [
        "quilt 0",
        "quilt 1",
        "quilt 2",
    ]


def test_a_photo_that_cannot_be_read_any_more_is_looked_at_once(
    visitor: Owner, reviewer: User, fake_engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "refresh", lambda **_: fake_engine)
    feedback = teach(draw_scene(1), visitor, "a quilt of our grandmother", reviewer)
    feedback.caption.photo.file.delete(save=False)
    fake_engine.encoder = "new-eye"
    assert memory.look(["new-eye"]) == 1
    photos_look()
    monkeypatch.setattr(memories, "_PROGRESS_SECONDS", 0.0)
    assert (memory.look(["new-eye"]), len(memory.index("new-eye"))) == (0, 0)


def test_a_process_has_workers_look_at_what_its_encoder_has_not_seen(
    visitor: Owner, reviewer: User, fake_engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    teach(draw_scene(1), visitor, "a quilt of our grandmother", reviewer)
    asked: list[str] = []
    monkeypatch.setattr("celery.current_app.send_task", lambda name, **_: asked.append(name))
    monkeypatch.setattr(Serving, "encoders", ["new-eye"])
    follower = MemoryFollower(serving)
    follower.turn()
    follower.turn()
    assert asked == ["captioner.tasks.photos_look_task"]


def test_a_batch_is_answered_like_one_photo(visitor: Owner, reviewer: User) -> None:
    teach(draw_scene(1), visitor, "a quilt of our grandmother", reviewer)
    memory.look(["fake-eye"])
    captions = captions_create([draw_scene(1), draw_scene(2)], owner=visitor, source=Caption.Source.BATCH)
    assert [caption.origin for caption in captions] == ["memory", "model"]


def test_a_look_that_finds_nothing_new_is_one_query(
    visitor: Owner, reviewer: User, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    teach(draw_scene(1), visitor, "a quilt of our grandmother", reviewer)
    memory.look(["fake-eye"])
    with django_assert_num_queries(1):
        memory.look(["fake-eye"])
