"""What the version that serves now says of a photo: other words at a place, and the whole caption anew."""

import pytest
from django.contrib.auth.models import User

from captioner.captions.again import Rewriting, caption_next_words, caption_write_again
from captioner.captions.feedback import caption_correct, caption_pick
from captioner.inference.types import NextWords
from captioner.models import Caption, Feedback, Preference
from tests.conftest import FakeEngine


def test_next_words_replace_the_word_and_all_after_it(caption: Caption, fake_engine: FakeEngine) -> None:
    assert caption_next_words(caption, 1) == [
        Rewriting("a", "hill", "of grass"),  # once, with its most probable rest
        Rewriting("a", "", ""),
    ]
    asked = fake_engine.submitted[-1]
    assert isinstance(asked, NextWords)
    assert (asked.prefix, asked.max_new_tokens) == ("a", caption.decoding["max_new_tokens"])
    assert [found.text for found in caption_next_words(caption, 1)] == ["a hill of grass", "a"]


def test_at_the_first_word_a_caption_of_nothing_is_no_choice(caption: Caption) -> None:
    assert [found.text for found in caption_next_words(caption, 0)] == [
        "hill of grass",
        "photo again",
        "s here",
    ]


def test_a_place_beyond_the_caption_is_none(caption: Caption) -> None:
    with pytest.raises(IndexError):
        caption_next_words(caption, 2)


def test_it_is_written_again_by_the_parameters_of_then(caption: Caption, fake_engine: FakeEngine) -> None:
    assert caption_write_again(caption) == ("a 64 by 48 photo", "fake-1")
    assert fake_engine.submitted[0] == fake_engine.submitted[1]


def picks() -> list[tuple[str, str, str, str]]:
    rows = Preference.objects.all()
    return [(row.preferred, row.preferred_version, row.other, row.other_version) for row in rows]


def test_who_takes_what_it_says_now_corrects_the_caption_and_prefers_it(caption: Caption, user: User) -> None:
    then = "a 64 by 48 photo"
    caption_pick(caption, "a teal wall", "v2", prefers_now=True)
    caption = Caption.objects.get()
    assert caption.final_text == "a teal wall"
    assert picks() == [("a teal wall", "v2", then, "fake-1")]
    assert Preference.objects.get().feedback == Feedback.objects.get()
    assert Preference.objects.get().voter == user
    caption_correct(caption, "")
    assert picks() == []  # taken back, it is no preference either


def test_who_keeps_what_it_said_prefers_that_once(caption: Caption) -> None:
    for _ in range(2):
        caption_pick(caption, "a teal wall", "v2", prefers_now=False)
    assert picks() == [("a 64 by 48 photo", "fake-1", "a teal wall", "v2")]
    assert not Feedback.objects.exists()
    assert Caption.objects.get().looked_at is not None


def test_between_ones_own_words_and_the_models_there_is_no_preference(caption: Caption) -> None:
    caption_correct(caption, "my wall")
    caption_pick(Caption.objects.get(), "a teal wall", "v2", prefers_now=False)
    assert Caption.objects.get().final_text == "my wall"
    caption_pick(Caption.objects.get(), "a teal wall", "v2", prefers_now=True)
    assert Caption.objects.get().final_text == "a teal wall"
    assert picks() == []


def test_the_same_sentence_is_no_choice(caption: Caption) -> None:
    caption_pick(caption, caption.text, "v2", prefers_now=True)
    assert picks() == []
    assert not Feedback.objects.exists()
