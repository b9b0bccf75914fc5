"""Every page in light and dark, on a phone and on a desk: accessible, and nothing sticks out."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from captioner.models import Caption, Feedback, Preference
from models_registry.models import Alias, ModelVersion
from tests.e2e.conftest import NewContext, Site, caption_photo
from training.models import Comparison, HeldOutPhoto, TrainingRun

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]

WCAG = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
PHONE = {"width": 360, "height": 740}
DESK = {"width": 1440, "height": 900}
# Colours do not depend on the size, and overflow is measured at both sizes below.
view = pytest.mark.parametrize(("size", "scheme"), [(PHONE, "light"), (DESK, "dark")], ids=["phone", "desk"])


def violations(page: Page, rules: dict = WCAG) -> str:
    results = Axe().run(page, options=rules)
    return results.generate_report() if results.violations_count else ""


def overflow(page: Page) -> list[int]:
    """By how many pixels the page is wider than its window, on a phone and on a desk."""
    widths = []
    for size in (PHONE, DESK):
        page.set_viewport_size(size)
        widths.append(
            page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        )
    return widths


def sign_in(page: Page, site: Site) -> None:
    page.goto("/login")
    page.get_by_label("User name").fill(site.username)
    page.get_by_label("Password").fill(site.password)
    page.get_by_role("main").get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/")


@view
def test_the_pages_are_accessible_and_fit_their_window(
    new_context: NewContext, size: dict, scheme: str
) -> None:
    page = new_context(viewport=size, color_scheme=scheme).new_page()
    caption_photo(page)
    Caption.objects.update(
        words=[
            {"text": text, "probability": p}
            for text, p in (("a", 0.9), ("dog", 0.6), ("in", 0.4), ("snow", 0.1))
        ]
    )
    page.reload()
    page.get_by_text("How sure was the model?").click()
    page.get_by_role("radio", name="8").click()
    expect(page.get_by_text("Waiting for review")).to_be_visible()
    addresses = [page.url, f"{page.url}/delete", "/", "/captions/", "/captions/?q=nothing", "/login", "/none"]
    for address in addresses:
        if address != page.url:
            page.goto(address)
        assert violations(page) == "", address
        assert overflow(page) == [0, 0], address
        page.set_viewport_size(size)


@view
def test_an_empty_history_and_a_refused_upload_are_accessible(
    new_context: NewContext, size: dict, scheme: str
) -> None:
    page = new_context(viewport=size, color_scheme=scheme).new_page()
    page.goto("/captions/")
    assert violations(page) == ""
    page.goto("/")
    long_name = f"{'a-very-long-file-name' * 10}.jpg"
    page.set_input_files("#image", {"name": long_name, "mimeType": "image/jpeg", "buffer": b"no photo"})
    assert overflow(page) == [0, 0]
    page.get_by_role("button", name="Write the caption").click()
    expect(page.get_by_text("This is no photo this service can read.")).to_be_visible()
    assert violations(page) == ""
    assert overflow(page) == [0, 0]


@view
def test_the_pages_of_jobs_and_of_oneself_are_accessible(
    new_context: NewContext, site: Site, job: str, size: dict, scheme: str
) -> None:
    page = new_context(viewport=size, color_scheme=scheme).new_page()
    sign_in(page, site)
    page.goto("/account")
    page.get_by_label("What will use the new key?").fill("importer")
    page.get_by_role("button", name="Make a key").click()
    expect(page.locator(".secret-text")).to_be_visible()
    # One that looks again by itself is never valid to axe, which has its own opinion on that; people can stop the job.
    rules = WCAG | {"rules": {"meta-refresh": {"enabled": False}}}
    for address in (page.url, "/jobs/", job, "/account/password", "/welcome/MQ/none"):
        if address != page.url:
            page.goto(address)
        assert violations(page, rules) == "", address
        assert overflow(page) == [0, 0], address
        page.set_viewport_size(size)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_review_queue_is_accessible(new_context: NewContext, site: Site, scheme: str) -> None:
    page = new_context(viewport=DESK, color_scheme=scheme).new_page()
    sign_in(page, site)
    caption_photo(page)
    page.get_by_label("Your own caption").fill("green hills")
    page.get_by_role("radio", name="8").click()
    expect(page.get_by_text("Waiting for review")).to_be_visible()
    page.goto("/admin/captioner/feedback/")
    assert violations(page, {"runOnly": ["wcag2a", "wcag2aa"]}) == ""
    page.goto(f"/admin/captioner/feedback/{Feedback.objects.get().pk}/change/")
    assert violations(page, {"runOnly": ["wcag2a", "wcag2aa"]}) == ""


@view
def test_what_reviewers_are_asked_blind_is_accessible_and_answered_by_keys(
    new_context: NewContext, site: Site, size: dict, scheme: str
) -> None:
    page = new_context(viewport=size, color_scheme=scheme).new_page()
    caption_photo(page)
    sign_in(page, site)
    photo = Caption.objects.get().photo
    HeldOutPhoto.objects.create(photo=photo)
    champion, candidate = (
        ModelVersion.objects.create(id=name, model_name=name, manifest={}) for name in ("old", "new")
    )
    Alias.objects.create(name="champion", version=champion)
    run = TrainingRun.objects.create(
        trigger="person",
        status="finished",
        champion=champion,
        candidate=candidate,
        verdict="insufficient evidence",
    )
    Comparison.objects.create(
        run=run, photo=photo, candidate="green hills below a blue sky", champion="a photo of something"
    )
    rules = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}
    for address in (
        f"/admin/training/trainingrun/{run.pk}/vote",
        "/admin/training/blindcaption/write",
    ):
        page.goto(address)
        assert violations(page, rules) == "", address
        assert overflow(page) == [0, 0], address
        page.set_viewport_size(size)
    page.goto(f"/admin/training/trainingrun/{run.pk}/vote")
    expect(page.locator("[data-keys]")).to_be_focused()  # so the browser says once it has drawn the page
    page.keyboard.press("2")
    expect(page.get_by_text("1 vote")).to_be_visible()
    assert Preference.objects.get().training_run == run.pk


def test_dark_and_light_follow_the_system(page: Page) -> None:
    page.goto("/")
    background = "getComputedStyle(document.body).backgroundColor"
    page.emulate_media(color_scheme="light")
    light = page.evaluate(background)
    page.emulate_media(color_scheme="dark")
    assert (light, page.evaluate(background)) == ("rgb(250, 248, 243)", "rgb(23, 21, 17)")
