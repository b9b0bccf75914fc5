"""The one door, in a browser: a row for each photo, sent one after the other."""

import base64
import re
import time
from concurrent.futures import Future

import pytest
from playwright.sync_api import JSHandle, Page, Route, expect

from captioner.celery import app
from captioner.exceptions import Overloaded
from captioner.jobs import worker
from captioner.models import Caption, Job
from tests.conftest import FakeEngine, fake_prediction
from tests.e2e.conftest import NewContext, photo_file
from tests.e2e.test_design import overflow, view, violations
from tests.photos import draw_landscape

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]

LIST = "Chosen photos"


def transfer(page: Page, *names: str, kind: str = "image/jpeg", count: int = 1) -> JSHandle:
    """The payload of a drop or a paste: `count` files of each name."""
    return page.evaluate_handle(
        """([names, kind, data, count]) => {
            const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
            const transfer = new DataTransfer();
            for (const name of names)
                for (let n = 0; n < count; n++)
                    transfer.items.add(new File([bytes], count > 1 ? `${n}-${name}` : name, { type: kind }));
            return transfer;
        }""",
        [names, kind, base64.b64encode(draw_landscape((64, 48))).decode(), count],
    )


def drop(page: Page, payload: JSHandle, where: str = "footer") -> None:
    page.locator(where).dispatch_event("dragover", {"dataTransfer": payload})
    expect(page.locator("[data-dropzone]")).to_have_class(re.compile("is-over"))
    page.locator(where).dispatch_event("drop", {"dataTransfer": payload})


def rows(page: Page):
    return page.get_by_role("list", name=LIST).get_by_role("listitem")


def sent_to(page: Page) -> list[str]:
    """What is sent from now on."""
    posts: list[str] = []
    page.on("request", lambda request: posts.append(request.url) if request.method == "POST" else None)
    return posts


def test_chosen_photos_are_listed_and_captioned_together(page: Page) -> None:
    page.goto("/")
    page.set_input_files("#image", [photo_file("one.jpg"), photo_file("two.jpg", (320, 200))])
    expect(rows(page)).to_contain_text(["one.jpg", "two.jpg"])
    expect(page.locator("[data-upload-status]")).to_have_text("2 files chosen")
    page.get_by_role("button", name="Write the captions").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("2 photos")
    expect(page.locator(".card")).to_have_count(2)
    page.get_by_text("Give it a name").click()
    page.get_by_label("Name").fill("Crete")
    page.get_by_role("button", name="Save").click()
    page.get_by_role("link", name="All your jobs").click()
    expect(page.get_by_role("link", name="Crete")).to_be_visible()


def test_forty_photos_dropped_anywhere_are_forty_rows_and_a_second_drop_adds(page: Page) -> None:
    page.goto("/")
    drop(page, transfer(page, "photo.jpg", count=40))
    expect(rows(page)).to_have_count(40)
    drop(page, transfer(page, "late.jpg"), "h1")
    expect(rows(page)).to_have_count(41)
    expect(rows(page).last).to_contain_text("late.jpg")


def test_two_thousand_photos_are_told_the_limit_before_a_byte_is_sent(page: Page) -> None:
    page.goto("/")
    posts = sent_to(page)
    drop(page, transfer(page, "photo.jpg", count=2000))
    expect(page.locator("[data-upload-status]")).to_contain_text(
        "These would be 2,000 photos; at most 1,000 photos are taken at a time."
    )
    expect(page.locator("[data-previews]")).to_be_hidden()
    assert posts == []


def test_a_photo_can_be_pasted(page: Page) -> None:
    page.goto("/")
    page.evaluate(
        "data => document.dispatchEvent(new ClipboardEvent('paste', { clipboardData: data }))",
        transfer(page, "pasted.png"),
    )
    expect(page.get_by_text("pasted.png").first).to_be_visible()


def test_dropping_something_else_says_so(page: Page) -> None:
    page.goto("/")
    drop(page, transfer(page, "notes.txt", kind="text/plain"))
    expect(page.locator("[data-upload-status]")).to_have_text("That was no photo.")
    expect(page.locator("[data-previews]")).to_be_hidden()


def test_what_is_taken_out_before_is_not_sent(page: Page) -> None:
    page.goto("/")
    page.set_input_files("#image", [photo_file("keep.jpg"), photo_file("private.jpg"), photo_file("too.jpg")])
    page.get_by_role("button", name="Remove: private.jpg").click()
    expect(rows(page)).to_contain_text(["keep.jpg", "too.jpg"])
    expect(page.get_by_role("button", name="Remove: too.jpg")).to_be_focused()
    page.get_by_role("button", name="Write the captions").click()
    expect(page.locator(".card")).to_have_count(2)
    assert sorted(Caption.objects.values_list("file_name", flat=True)) == ["keep.jpg", "too.jpg"]


def test_a_photo_that_was_not_sent_is_sent_again(page: Page) -> None:
    page.goto("/")
    page.route("**/uploads/*/1", lambda route: route.abort(), times=1)
    page.set_input_files("#image", [photo_file(f"{number}.jpg", (320 + number, 240)) for number in range(3)])
    page.get_by_role("button", name="Write the captions").click()
    failed = rows(page).nth(1)
    expect(failed).to_contain_text("The connection broke off.")
    expect(rows(page).nth(2)).to_contain_text("Sent")
    expect(page.get_by_role("button", name="Go on without them")).to_be_enabled()
    failed.get_by_role("button", name="Try again").click()
    page.wait_for_url("**/jobs/*")
    assert list(Caption.objects.order_by("job_photo__index").values_list("file_name", flat=True)) == [
        "0.jpg",
        "1.jpg",
        "2.jpg",
    ]


def test_one_can_go_on_without_what_is_no_photo_and_is_told_why(page: Page) -> None:
    page.goto("/")
    fake = {"name": "fake.jpg", "mimeType": "image/jpeg", "buffer": b"no photo"}
    large = {"name": "large.jpg", "mimeType": "image/jpeg", "buffer": bytes(17 * 2**20)}
    page.set_input_files("#image", [photo_file("good.jpg"), fake, large])
    expect(rows(page).nth(2)).to_contain_text("17.0 MB: at most 16.0 MB are taken.")
    page.get_by_role("button", name="Write the captions").click()
    expect(rows(page).nth(1)).to_contain_text("This is no photo this service can read.")
    expect(page.get_by_role("button", name="Try again: fake.jpg")).to_be_hidden()
    page.get_by_role("button", name="Go on without them").click()
    page.wait_for_url("**/captions/*")
    assert not Job.objects.exists()


def test_while_it_is_sent_a_photo_can_be_cancelled_or_added_and_the_button_is_busy(page: Page) -> None:
    page.goto("/")
    held: list[Route] = []
    page.route("**/uploads/*/0", lambda route: held.append(route))
    page.set_input_files("#image", [photo_file("slow.jpg"), photo_file("next.jpg")])
    button = page.locator("[data-submit]")
    button.click()
    expect(button).to_have_text("Sending…")
    expect(button).to_have_attribute("aria-disabled", "true")
    expect(rows(page).first.get_by_role("progressbar", name="slow.jpg: sent")).to_be_visible()
    page.set_input_files("#image", photo_file("late.jpg"))
    page.get_by_role("button", name="Cancel: slow.jpg").click()
    page.wait_for_url("**/jobs/*")
    assert sorted(Caption.objects.values_list("file_name", flat=True)) == ["late.jpg", "next.jpg"]


def test_a_slow_line_shows_how_far_a_photo_is(page: Page) -> None:
    page.goto("/")
    devtools = page.context.new_cdp_session(page)
    devtools.send("Network.enable")
    devtools.send(
        "Network.emulateNetworkConditions",
        {"offline": False, "latency": 20, "downloadThroughput": 400_000, "uploadThroughput": 400_000},
    )
    slow = photo_file("slow.jpg")
    slow["buffer"] += bytes(1_200_000)  # behind the end of the picture
    page.set_input_files("#image", slow)
    bar = rows(page).get_by_role("progressbar")
    page.get_by_role("button", name="Write the caption").click()
    expect(bar).to_be_visible()
    seen: set[float] = set()
    while bar.is_visible():
        seen.add(bar.evaluate("bar => bar.value", timeout=1000))
        page.wait_for_timeout(100)
    assert len([share for share in seen if 0.05 < share < 0.95]) >= 2, seen
    page.wait_for_url("**/captions/*")


def test_a_slow_model_captions_all_that_was_sent(
    page: Page, fake_engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second a photo, as the engine tells it: it refuses whom it cannot answer in three seconds."""
    free_at = [0.0]
    sent: list[tuple[str, list[int]]] = []

    def submit(image, parameters, deadline, patience: float = 3.0):
        now = time.monotonic()
        free_at[0] = max(free_at[0], now) + 1.0
        if free_at[0] - now > patience:
            free_at[0] -= 1.0
            raise Overloaded("The queue is full.", retry_after=free_at[0] - now)
        future: Future = Future()
        time.sleep(0.01)
        future.set_result(fake_prediction(image, parameters.num_captions))
        return future

    monkeypatch.setattr(fake_engine, "submit", submit)
    monkeypatch.setattr("captioner.serving.process.serving.refresh", lambda **_: fake_engine)
    monkeypatch.setattr(app, "send_task", lambda _task, arguments, **_: sent.append(arguments))
    page.goto("/")
    page.set_input_files("#image", [photo_file(f"{n}.jpg", (320 + n, 240)) for n in range(20)])
    page.get_by_role("button", name="Write the captions").click()
    page.wait_for_url("**/jobs/*")
    expect(page.get_by_text("17 to go")).to_be_visible()
    monkeypatch.setattr(fake_engine, "submit", lambda *photo: submit(*photo, patience=100.0))
    for job, indexes in sent:
        worker.job_photos_caption(job, indexes)
    expect(page.get_by_text("20 captioned.")).to_be_visible()
    expect(page.locator(".card")).to_have_count(20)
    page.wait_for_load_state("networkidle")  # the last pictures


@view
def test_the_list_of_what_is_sent_is_accessible_and_fits(
    new_context: NewContext, size: dict, scheme: str
) -> None:
    page = new_context(viewport=size, color_scheme=scheme).new_page()
    page.goto("/")
    page.route("**/uploads/*/1", lambda route: route.abort(), times=1)
    long_name = f"{'a-very-long-file-name' * 10}.jpg"
    fake = {"name": long_name, "mimeType": "image/jpeg", "buffer": b"no photo"}
    page.set_input_files("#image", [photo_file("good.jpg"), photo_file("broken.jpg"), fake])
    assert violations(page) == ""
    page.get_by_role("button", name="Write the captions").click()
    expect(page.get_by_role("button", name="Go on without them")).to_be_visible()
    assert violations(page) == ""
    assert overflow(page) == [0, 0]
