"""The content security policy, as a browser sees it: no page of ours breaks it, the admin's and the API's included."""

import re

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Page, expect

from captioner.captions.api_keys import api_key_create
from captioner.exceptions import Overloaded
from captioner.models import Feedback
from tests.conftest import FakeEngine
from tests.e2e.conftest import NewContext, Site, caption_photo
from tests.e2e.test_design import sign_in
from tests.photos import draw_landscape

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def complaints(new_context: NewContext) -> tuple[Page, list[str]]:
    """A page of a person's, and what the browser's console said against what it shows."""
    page = new_context(permissions=["clipboard-read", "clipboard-write"]).new_page()
    told: list[str] = []
    page.on(
        "console",
        lambda message: told.append(f"{page.url}: {message.text}") if message.type == "error" else None,
    )
    page.on("pageerror", lambda error: told.append(f"{page.url}: {error}"))
    return page, told


def test_no_page_breaks_it(complaints: tuple[Page, list[str]], site: Site, job: str) -> None:
    page, told = complaints
    sign_in(page, site)
    caption_photo(page)
    page.get_by_role("radio", name="8").click()
    expect(page.locator("[data-feedback-status]")).to_have_text("Saved. Thank you!")
    api_key_create(User.objects.get(username=site.username), "script")
    caption = page.url
    addresses = [
        "/",
        caption,
        f"{caption}/delete",
        "/captions/",
        "/jobs/",
        job,
        "/account",
        "/account/password",
    ]
    for address in [*addresses, "/admin/"]:
        page.goto(address)
        page.wait_for_load_state("networkidle")
    assert told == []
    page.goto("/welcome/MQ/none")
    expect(page.get_by_text("This link is not valid any more.")).to_be_visible()
    assert told == []


def test_the_admin_does_not_break_it(complaints: tuple[Page, list[str]], site: Site, job: str) -> None:
    page, told = complaints
    sign_in(page, site)
    caption_photo(page)
    page.get_by_label("Your own caption").fill("green hills")
    page.get_by_role("radio", name="8").click()
    expect(page.get_by_text("Waiting for review")).to_be_visible()
    page.goto("/admin/")
    lists = page.eval_on_selector_all("#content a[href]", "links => links.map(link => link.pathname)")
    lists = sorted({link for link in lists if re.fullmatch(r"/admin/\w+/\w+/(add/)?", link)})
    assert "/admin/captioner/apikey/add/" in lists
    changed = [f"/admin/captioner/feedback/{Feedback.objects.get().pk}/change/", "/admin/auth/user/1/change/"]
    for address in [*lists, *changed]:
        page.goto(address)
        page.wait_for_load_state("networkidle")
    page.goto("/admin/captioner/apikey/add/")
    page.locator(".select2-selection").click()
    page.get_by_role("option", name=site.username).click()
    page.get_by_label("Name:").fill("script")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("Copy the key now")).to_be_visible()
    assert told == []


def test_the_apis_page_does_not_break_it(complaints: tuple[Page, list[str]]) -> None:
    page, told = complaints
    page.goto("/api/docs")
    page.locator("#operations-captions-captions_list .opblock-summary-control").click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    expect(page.locator(".live-responses-table td.response-col_status").last).to_contain_text("200")
    page.wait_for_load_state("networkidle")
    assert told == []


def test_a_key_is_made_copied_and_revoked_without_javascript_too(new_context: NewContext, site: Site) -> None:
    page = new_context(java_script_enabled=False).new_page()
    sign_in(page, site)
    page.get_by_role("link", name="Your account").click()
    page.get_by_label("What will use the new key?").fill("importer")
    page.get_by_role("button", name="Make a key").click()
    expect(page.locator(".secret-text")).to_be_visible()
    page.get_by_role("link", name="Revoke").click()
    page.get_by_role("button", name="Revoke").click()
    expect(page.get_by_text("The key “importer” was revoked.")).to_be_visible()


def test_a_job_is_sent_watched_and_stopped_without_javascript(
    new_context: NewContext, site: Site, fake_engine: FakeEngine, job: str
) -> None:
    fake_engine.error = Overloaded("The queue is full.", retry_after=3)
    page = new_context(java_script_enabled=False).new_page()
    sign_in(page, site)
    page.get_by_role("link", name="New").click()
    photo = {"name": "hills.jpg", "mimeType": "image/jpeg", "buffer": draw_landscape()}
    page.set_input_files("#image", [photo, photo | {"name": "more.jpg"}])
    page.get_by_role("button", name="Write the captions").click()
    expect(page.get_by_text("2 to go")).to_be_visible()
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("2 not captioned")).to_be_visible()
