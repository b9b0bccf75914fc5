"""What people correct is what they take away: the worksheet, exports and the clipboard, in a browser."""

import csv
import io
import json

import pytest
from playwright.sync_api import Page, expect

from captioner.models import Caption, Feedback
from tests.e2e.conftest import NewContext, caption_photo, photo_file
from tests.e2e.test_design import DESK, PHONE, overflow, violations

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def sheet(page: Page) -> Page:
    """The worksheet of three photos that were just sent."""
    page.goto("/")
    photos = [photo_file(f"photo-{number}.jpg", (320 + number, 240)) for number in range(3)]
    page.set_input_files("#image", photos)
    page.get_by_role("button", name="Write the captions").click()
    page.get_by_role("link", name="Go through them").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("3 captions to go through")
    return page


def said() -> list[str]:
    return [caption.final_text for caption in Caption.objects.with_details().order_by("file_name")]


def test_a_row_is_saved_when_it_is_left_and_tab_leads_to_the_next(sheet: Page) -> None:
    fields = [sheet.get_by_label(f"Caption of photo-{number}.jpg") for number in range(3)]
    fields[0].fill("hills under a sun")
    sheet.keyboard.press("Tab")
    expect(fields[1]).to_be_focused()
    expect(sheet.get_by_text("In your words.")).to_be_visible()
    sheet.keyboard.press("Tab")
    expect(fields[2]).to_be_focused()
    expect(sheet.get_by_text("Not looked at", exact=True).and_(sheet.locator(".sheet-fresh"))).to_have_count(
        1
    )
    assert said() == ["hills under a sun", "a 321 by 240 photo", "a 322 by 240 photo"]
    assert [feedback.ideal_caption for feedback in Feedback.objects.all()] == ["hills under a sun"]
    # Not by a click, which would leave the last row as well.
    sheet.goto(f"/worksheet{sheet.get_by_role('link', name='Not looked at').get_attribute('href')}")
    expect(sheet.locator("[data-row]")).to_have_count(1)


def test_a_candidate_is_taken_with_one_click_or_with_the_keyboard(sheet: Page) -> None:
    row = sheet.locator("[data-row]").first
    row.get_by_role("button", name="Use instead: a 320 by 240 photo number 1").click()
    expect(row.get_by_role("textbox")).to_have_value("a 320 by 240 photo number 1")
    expect(row.get_by_text("In your words.")).to_be_visible()
    second = sheet.get_by_label("Caption of photo-1.jpg")
    second.focus()
    sheet.keyboard.press("Alt+ArrowDown")
    expect(second).to_have_value("a 321 by 240 photo number 1")
    sheet.keyboard.press("Escape")
    expect(second).to_have_value("a 321 by 240 photo")
    sheet.keyboard.press("Alt+ArrowUp")
    sheet.keyboard.press("Enter")
    expect(sheet.get_by_label("Caption of photo-2.jpg")).to_be_focused()
    expect(sheet.get_by_text("In your words.")).to_have_count(2)
    assert said()[:2] == ["a 320 by 240 photo number 1", "a 321 by 240 photo number 2"]


def test_doubtful_words_are_underlined_until_they_are_changed(sheet: Page) -> None:
    row = sheet.locator("[data-row]").first
    field, doubts = row.get_by_role("textbox"), row.locator(".sheet-doubts")
    Caption.objects.update(
        text="a 320 photo",
        words=[{"text": text, "probability": p} for text, p in (("a", 0.9), ("320", 0.8), ("photo", 0.1))],
    )
    sheet.reload()
    expect(doubts.locator(".doubt-3")).to_have_text("photo")
    field.fill("hills")
    expect(doubts).to_be_hidden()
    sheet.keyboard.press("Escape")
    expect(doubts).to_be_visible()


def test_what_was_typed_is_saved_when_the_page_is_left(sheet: Page) -> None:
    sheet.get_by_label("Caption of photo-0.jpg").fill("hills")
    sheet.goto("/captions/")
    for _ in range(100):
        if Feedback.objects.exists():
            break
        sheet.wait_for_timeout(100)  # it is saved behind the new page
    sheet.reload()
    expect(sheet.get_by_role("link", name="hills").first).to_be_visible()


def test_what_is_copied_and_downloaded_is_what_was_corrected(sheet: Page) -> None:
    sheet.get_by_label("Caption of photo-1.jpg").fill('=hills "and" a sun')
    sheet.get_by_role("button", name="Copy all").click()
    expect(sheet.locator("[data-announce]")).to_contain_text("Copied 3 captions")
    lines = sheet.evaluate("navigator.clipboard.readText()").split("\n")
    assert lines[1] == 'photo-1.jpg\t=hills "and" a sun'
    expect(sheet.get_by_text("In your words.")).to_be_visible()
    sheet.get_by_text("Take along").click()
    sheet.get_by_label("for Excel").check()
    with sheet.expect_download() as download:
        sheet.get_by_role("button", name="Download").click()
    data = download.value.path().read_bytes()
    assert data.startswith(b"\xef\xbb\xbf")
    table = [*csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""))]
    assert [row["file_name"] for row in table] == ["photo-0.jpg", "photo-1.jpg", "photo-2.jpg"]
    assert table[1]["caption"] == '\'=hills "and" a sun'


def test_the_corrected_caption_is_the_caption_on_its_page_and_to_programs(page: Page) -> None:
    caption_photo(page)
    page.get_by_label("Your own caption").fill("hills under a sun")
    page.get_by_role("button", name="Save feedback").click()
    expect(page.locator("[data-feedback-status]")).to_have_text("Saved. Thank you!")
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_have_text("hills under a sun")
    expect(page.get_by_role("img", name="hills under a sun")).to_be_visible()
    page.get_by_role("button", name="Copy as <img>").click()
    expect(page.locator("[data-announce]")).to_contain_text("Copied")
    assert (
        page.evaluate("navigator.clipboard.readText()") == '<img src="landscape.jpg" alt="hills under a sun">'
    )
    answer = page.request.get(f"/api/v1{page.url.removeprefix(page.url.split('/captions')[0])}").json()
    assert (answer["caption"], answer["machine_caption"]) == ("hills under a sun", "a 640 by 480 photo")
    export = page.request.get("/api/v1/captions/export?format=json")
    assert json.loads(export.text())[0]["caption"] == "hills under a sun"


def test_a_selection_of_the_history_is_downloaded(sheet: Page) -> None:
    sheet.goto("/captions/")
    sheet.get_by_label("Select: a 321 by 240 photo").check()
    sheet.get_by_text("Take along").click()
    sheet.get_by_label("HTML").check()
    with sheet.expect_download() as download:
        sheet.get_by_role("button", name="Download").click()
    assert download.value.path().read_text() == '<img src="photo-1.jpg" alt="a 321 by 240 photo">\n'


def test_a_bulk_deletion_is_undone(sheet: Page) -> None:
    sheet.goto("/captions/")
    for number in (0, 2):
        sheet.get_by_label(f"Select: a {320 + number} by 240 photo").check()
    sheet.get_by_role("button", name="Delete what is ticked").click()
    expect(sheet.get_by_text("2 captions deleted.")).to_be_visible()
    expect(sheet.locator(".card")).to_have_count(1)
    assert violations(sheet) == ""
    sheet.get_by_role("button", name="Undo").click()
    expect(sheet.get_by_text("2 captions are back.")).to_be_visible()
    expect(sheet.locator(".card")).to_have_count(3)


def test_it_works_without_javascript(new_context: NewContext) -> None:
    page = new_context(java_script_enabled=False).new_page()
    caption_photo(page)
    page.goto("/worksheet")
    page.get_by_label("Caption of landscape.jpg").fill("hills")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("In your words.")).to_be_visible()
    page.get_by_role("button", name="Use instead: a 640 by 480 photo number 1").click()
    expect(page.get_by_label("Caption of landscape.jpg")).to_have_value("a 640 by 480 photo number 1")


@pytest.mark.parametrize(("size", "scheme"), [(PHONE, "light"), (DESK, "dark")], ids=["phone", "desk"])
def test_the_worksheet_and_exports_are_accessible(new_context: NewContext, size: dict, scheme: str) -> None:
    page = new_context(viewport=size, color_scheme=scheme).new_page()
    caption_photo(page)
    Caption.objects.update(
        file_name="a-very-long-file-name" * 8,
        looked_at=None,
        words=[{"text": text, "probability": p} for text, p in (("a", 0.9), ("dog", 0.1))],
    )
    for address in ("/worksheet", "/captions/"):
        page.goto(address)
        page.get_by_text("Take along").click()
        assert violations(page) == "", address
        assert overflow(page) == [0, 0], address
        page.set_viewport_size(size)
    page.goto("/captions/?since=none")
    assert violations(page) == ""
    page.goto("/worksheet?only=approved")
    assert violations(page) == ""
