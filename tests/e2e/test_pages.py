"""The pages in a browser, with and without JavaScript."""

import re

import pytest
from playwright.sync_api import Page, Route, expect

from captioner.models import Caption, Feedback
from tests.e2e.conftest import NewContext, caption_photo

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]


def saved() -> tuple[int | None, str]:
    feedback = Feedback.objects.get()
    return feedback.rating, feedback.ideal_caption


# --- The result ---


def test_the_caption_and_its_alternatives_can_be_copied(page: Page) -> None:
    caption_photo(page)
    page.get_by_role("button", name="Copy caption").click()
    expect(page.locator("[data-announce]")).to_have_text("Copied: a 640 by 480 photo")
    assert page.evaluate("navigator.clipboard.readText()") == "a 640 by 480 photo"
    expect(page.get_by_text("Copied", exact=True)).to_be_visible()
    page.get_by_role("button", name="Copy: a 640 by 480 photo number 2").click()
    expect(page.locator("[data-announce]")).to_have_text("Copied: a 640 by 480 photo number 2")


def test_an_alternative_becomes_ones_own_caption_without_leaving_the_page(page: Page) -> None:
    caption_photo(page)
    address = page.url
    page.get_by_role("link", name="Use as my caption: a 640 by 480 photo number 1").click()
    expect(page.get_by_label("Your own caption")).to_have_value("a 640 by 480 photo number 1")
    expect(page.get_by_label("Your own caption")).to_be_focused()
    assert page.url == address


def test_a_click_on_a_rating_saves_it_at_once(page: Page) -> None:
    caption_photo(page)
    page.get_by_role("radio", name="8").click()
    expect(page.locator("[data-feedback-status]")).to_have_text("Saved. Thank you!")
    expect(page.get_by_text("Waiting for review")).to_be_visible()
    assert saved() == (8, "")
    page.get_by_role("radio", name="2").click()
    page.get_by_label("Your own caption").fill("hills")
    page.get_by_role("button", name="Save feedback").click()
    expect(page.locator("[data-feedback-status]")).to_have_text("Saved. Thank you!")
    page.reload()
    expect(page.get_by_role("radio", name="2")).to_be_checked()
    assert saved() == (2, "hills")


def test_what_is_typed_while_a_rating_is_being_saved_is_kept_and_not_called_saved(page: Page) -> None:
    caption_photo(page)
    held: list[Route] = []
    page.route("**/captions/*", lambda route: held.append(route), times=1)
    with page.expect_request("**/captions/*"):
        page.get_by_role("radio", name="8").click()
    page.get_by_label("Your own caption").fill("hills")
    held.pop().continue_()
    expect(page.get_by_text("Waiting for review")).to_be_visible()
    expect(page.get_by_label("Your own caption")).to_have_value("hills")
    expect(page.locator("[data-feedback-status]")).to_be_empty()
    assert saved() == (8, "")
    page.get_by_role("button", name="Save feedback").click()
    expect(page.locator("[data-feedback-status]")).to_have_text("Saved. Thank you!")
    assert saved() == (8, "hills")


def test_the_rating_is_chosen_with_arrow_keys_and_saved_with_enter(page: Page) -> None:
    caption_photo(page)
    page.get_by_role("radio", name="1 poor").focus()
    page.keyboard.press("Space")
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    expect(page.get_by_role("radio", name="6")).to_be_checked()
    assert not Feedback.objects.exists()
    page.keyboard.press("Enter")
    expect(page.locator("[data-feedback-status]")).to_have_text("Saved. Thank you!")
    expect(page.get_by_role("radio", name="6")).to_be_focused()
    assert saved() == (6, "")


def test_feedback_that_says_nothing_is_told_what_it_lacks(page: Page) -> None:
    caption_photo(page)
    page.get_by_role("button", name="Save feedback").click()
    expect(page.locator("fieldset .errorlist")).to_have_text(
        "Give a rating from 1 to 10, a better caption, or both."
    )


def test_feedback_is_sent_the_plain_way_when_the_quick_one_fails(page: Page) -> None:
    caption_photo(page)
    page.route("**/captions/*", lambda route: route.abort(), times=1)
    page.get_by_role("radio", name="4").click()
    page.wait_for_url("**/captions/*#feedback")
    expect(page.locator("[data-feedback-status]")).to_have_text("Saved. Thank you!")
    assert saved() == (4, "")


# --- Without JavaScript, and under a strict content security policy ---


def test_everything_works_without_javascript(new_context: NewContext) -> None:
    page = new_context(java_script_enabled=False).new_page()
    caption_photo(page)
    expect(page.get_by_role("button", name="Copy caption")).to_be_hidden()
    page.get_by_role("link", name="Correct it").click()
    expect(page.get_by_label("Your own caption")).to_have_value("a 640 by 480 photo")
    page.get_by_label("Your own caption").fill("hills")
    page.get_by_role("radio", name="5").check()
    page.get_by_role("button", name="Save feedback").click()
    expect(page.get_by_text("Saved. Thank you!")).to_be_visible()
    page.get_by_role("link", name="History").click()
    page.get_by_label("Search your captions").fill("hills")
    page.get_by_role("button", name="Search").click()
    page.get_by_role("link", name="Delete").click()
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_text("1 caption deleted.")).to_be_visible()
    assert Caption.objects.get().deleted_at is not None
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_text("1 caption is back.")).to_be_visible()
    assert Caption.objects.get().deleted_at is None


def test_the_pages_need_nothing_but_their_own_files(page: Page) -> None:
    """They work where only this host's scripts, styles and images are allowed, and previews as blobs."""
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'"
    )

    def with_policy(route: Route) -> None:
        response = route.fetch(max_redirects=0)
        route.fulfill(response=response, headers={**response.headers, "content-security-policy": policy})

    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.route(re.compile(r"/(captions/[^/]*)?$"), with_policy)
    caption_photo(page)
    page.get_by_role("radio", name="8").click()
    expect(page.locator("[data-feedback-status]")).to_have_text("Saved. Thank you!")
    page.get_by_role("link", name="History").click()
    expect(page.locator(".card img")).to_be_visible()
    assert complaints == []
