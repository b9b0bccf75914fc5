"""Several photos in one call: each gets its caption or its error, and they go in a batch at a time."""

from collections.abc import Iterator

import pytest
from pytest_django import Settings

from captioner.captions.captions import captions_create
from captioner.exceptions import CaptionerError, ClientGone, InvalidImage, Overloaded
from captioner.models import Caption, Owner
from tests.conftest import FakeEngine, draw_jpeg

pytestmark = pytest.mark.django_db


def create(photos: Iterator[bytes] | list[bytes], owner: Owner, **options) -> list[Caption | CaptionerError]:
    return captions_create(photos, owner=owner, source=Caption.Source.WEB, **options)


def test_every_photo_gets_its_caption_in_order(fake_engine: FakeEngine, visitor: Owner) -> None:
    captions = create([draw_jpeg((64, 48)), draw_jpeg((32, 32))], visitor)
    assert [caption.text for caption in captions] == ["a 64 by 48 photo", "a 32 by 32 photo"]
    assert Caption.objects.owned_by(visitor).count() == 2


def test_a_broken_photo_has_its_error_in_its_place(fake_engine: FakeEngine, visitor: Owner) -> None:
    first, broken, last = create([draw_jpeg(), b"no photo", draw_jpeg(colour="red")], visitor)
    assert isinstance(first, Caption)
    assert isinstance(broken, InvalidImage)
    assert isinstance(last, Caption)


def test_a_full_queue_fails_only_the_photos_it_refused(
    fake_engine: FakeEngine, visitor: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept = fake_engine.submit

    def one_only(*arguments: object) -> object:
        if fake_engine.submitted:
            raise Overloaded("Too much to do.", retry_after=3)
        return accept(*arguments)

    monkeypatch.setattr(fake_engine, "submit", one_only)
    accepted, refused = create([draw_jpeg(), draw_jpeg()], visitor)
    assert isinstance(accepted, Caption)
    assert isinstance(refused, Overloaded)


def test_a_batch_is_submitted_before_the_first_answer_and_the_next_one_read_only_after(
    fake_engine: FakeEngine, visitor: Owner, settings: Settings
) -> None:
    settings.CAPTION_MAX_BATCH = 2
    logged_before_reading = []

    def photos() -> Iterator[bytes]:
        for _ in range(5):
            logged_before_reading.append(Caption.objects.count())
            yield draw_jpeg()

    assert len(create(photos(), visitor)) == 5
    assert logged_before_reading == [0, 0, 2, 2, 4]


def test_a_client_that_left_ends_the_whole_call(fake_engine: FakeEngine, visitor: Owner) -> None:
    fake_engine.never_answers = True
    with pytest.raises(ClientGone):
        create([draw_jpeg(), draw_jpeg()], visitor, is_abandoned=lambda: True)
    assert [future.cancelled() for future in fake_engine.futures] == [True, True]


def test_no_photos_make_no_captions(fake_engine: FakeEngine, visitor: Owner) -> None:
    assert create([], visitor) == []
