"""One caption in a browser: edited in place, kept while unsaved, rewritten from a doubtful word, written again."""

import re

import pytest
from playwright.sync_api import Dialog, Page, expect

from captioner.models import Caption, Feedback, Preference
from tests.e2e.conftest import NewContext, caption_photo
from tests.e2e.test_design import DESK, PHONE, overflow, violations

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]

SAID = "a 640 by 480 photo"


@pytest.fixture
def shown(page: Page) -> Page:
    """The page of a caption that was just written."""
    caption_photo(page)
    Caption.objects.update(words=[{"text": word, "probability": 0.9} for word in SAID.split()])
    page.reload()
    expect(heading(page)).to_have_text(SAID)
    return page


def heading(page: Page):
    return page.get_by_role("heading", level=1)


def field(page: Page):
    return page.get_by_label("The caption", exact=True)


def test_a_click_on_the_sentence_edits_it_in_place_and_ctrl_enter_saves(shown: Page) -> None:
    heading(shown).click()
    expect(field(shown)).to_be_focused()
    expect(field(shown)).to_have_value(SAID)
    field(shown).fill("hills under a sun")
    shown.keyboard.press("Control+Enter")
    expect(heading(shown)).to_have_text("hills under a sun")
    expect(shown.get_by_text("Saved.")).to_be_visible()
    expect(shown.get_by_text("In your words.")).to_be_visible()
    assert [row.ideal_caption for row in Feedback.objects.all()] == ["hills under a sun"]
    # What the model wrote is a correction taken back.
    shown.get_by_role("link", name="Correct it").press("Enter")
    field(shown).fill(SAID)
    shown.keyboard.press("Enter")
    expect(heading(shown)).to_have_text(SAID)
    assert not Feedback.objects.exists()


def test_the_caret_stands_where_the_sentence_was_clicked(shown: Page) -> None:
    heading(shown).click(position={"x": 2, "y": 20})
    shown.keyboard.type("not ")
    expect(field(shown)).to_have_value(f"not {SAID}")
    shown.keyboard.press("Escape")
    expect(heading(shown)).to_have_text(SAID)
    expect(shown.get_by_role("link", name="Correct it")).to_be_focused()
    assert not Feedback.objects.exists()


def test_a_triple_click_copies_the_whole_sentence(shown: Page) -> None:
    heading(shown).click(click_count=3)
    shown.keyboard.press("Control+c")
    assert shown.evaluate("navigator.clipboard.readText()").strip() == SAID


def test_leaving_unsaved_text_asks_and_a_draft_survives(shown: Page) -> None:
    asked: list[str] = []

    def answer(dialog: Dialog) -> None:
        asked.append(dialog.type)
        dialog.accept()

    shown.on("dialog", answer)
    heading(shown).click()
    shown.keyboard.press("End")
    shown.keyboard.type(" of hills")
    shown.reload()
    expect(field(shown)).to_have_value(f"{SAID} of hills")
    expect(shown.get_by_text("You had begun this")).to_be_visible()
    assert asked == ["beforeunload"]
    shown.keyboard.press("Enter")
    expect(heading(shown)).to_have_text(f"{SAID} of hills")
    shown.reload()
    expect(field(shown)).to_be_hidden()
    shown.get_by_label("Your own caption").fill("a hill")
    shown.reload()
    expect(shown.get_by_label("Your own caption")).to_have_value("a hill")
    shown.keyboard.press("Tab")
    shown.get_by_label("Your own caption").press("Control+Enter")
    expect(shown.locator("[data-feedback-status]")).to_have_text("Saved. Thank you!")
    shown.reload()
    assert asked == ["beforeunload"] * 2
    assert shown.evaluate("localStorage.length") == 0


def test_a_draft_of_what_was_saved_elsewhere_meanwhile_is_dropped(shown: Page) -> None:
    heading(shown).click()
    field(shown).fill("hills")
    Caption.objects.update(text="a field", words=[])
    shown.reload()
    expect(heading(shown)).to_have_text("a field")
    expect(field(shown)).to_be_hidden()


def test_what_is_saved_below_is_the_heading_the_text_of_the_photo_and_what_is_copied(shown: Page) -> None:
    shown.get_by_label("Your own caption").fill("hills")
    shown.get_by_role("button", name="Save feedback").click()
    expect(heading(shown)).to_have_text("hills")
    expect(shown.get_by_role("img", name="hills")).to_be_visible()
    shown.get_by_role("button", name="Copy caption").click()
    expect(shown.locator("[data-announce]")).to_have_text("Copied: hills")
    expect(shown).to_have_title(re.compile("^hills "))


def test_a_caption_that_cannot_be_saved_now_is_not_lost(shown: Page) -> None:
    shown.route("**/text", lambda route: route.abort(), times=1)
    heading(shown).click()
    field(shown).fill("hills")
    address = shown.url
    shown.keyboard.press("Enter")
    shown.wait_for_timeout(200)
    shown.goto(address)
    expect(field(shown)).to_have_value("hills")


@pytest.fixture
def doubted(shown: Page) -> Page:
    """The same, where the model doubts the last word."""
    words = [{"text": word, "probability": 0.2 if word == "photo" else 0.9} for word in SAID.split()]
    Caption.objects.update(words=words)
    shown.reload()
    return shown


def test_a_click_on_a_doubtful_word_offers_others_with_a_rewritten_rest(doubted: Page) -> None:
    heading(doubted).get_by_text("photo").click()
    choice = doubted.get_by_role("button", name="a 640 by 480 hill of grass")
    expect(choice).to_be_focused()
    expect(field(doubted)).to_be_hidden()
    assert violations(doubted) == ""
    choice.click()
    expect(heading(doubted)).to_have_text("a 640 by 480 hill of grass")
    assert [row.ideal_caption for row in Feedback.objects.all()] == ["a 640 by 480 hill of grass"]


def test_other_words_are_had_by_keyboard_and_without_javascript(
    doubted: Page, new_context: NewContext
) -> None:
    doubted.get_by_role("button", name="photo", exact=True).press("Enter")
    expect(doubted.get_by_role("button", name="a 640 by 480 hill of grass")).to_be_focused()
    plain = new_context(java_script_enabled=False)
    plain.add_cookies(doubted.context.cookies())
    page = plain.new_page()
    page.goto(doubted.url)
    page.get_by_role("button", name="photo", exact=True).click()
    page.get_by_role("button", name="a 640 by 480 hill of grass").click()
    expect(heading(page)).to_have_text("a 640 by 480 hill of grass")
    expect(page.get_by_text("Saved.")).to_be_visible()
    page.get_by_role("button", name="Write it again").click()
    page.get_by_role("button", name="Take this one").click()
    expect(heading(page)).to_have_text(SAID)


def test_the_caption_is_written_again_and_the_pick_is_kept(shown: Page) -> None:
    Caption.objects.update(text="a green wall", words=[], model_version="fake-0")
    shown.reload()
    shown.get_by_role("button", name="Write it again").click()
    expect(shown.get_by_role("heading", name="fake-0 said")).to_be_visible()
    expect(shown.get_by_role("heading", name="fake-1 says now")).to_be_visible()
    assert violations(shown) == ""
    assert overflow(shown) == [0, 0]
    shown.get_by_role("button", name="Take this one").click()
    expect(heading(shown)).to_have_text(SAID)
    pick = Preference.objects.get()
    assert (pick.preferred, pick.other) == (SAID, "a green wall")


@pytest.mark.parametrize(("size", "scheme"), [(PHONE, "light"), (DESK, "dark")], ids=["phone", "desk"])
def test_editing_is_accessible_and_fits(new_context: NewContext, size: dict, scheme: str) -> None:
    page = new_context(viewport=size, color_scheme=scheme).new_page()
    caption_photo(page)
    heading(page).click()
    field(page).fill("a-very-long-word-" * 12)
    assert violations(page) == ""
    assert overflow(page) == [0, 0]
