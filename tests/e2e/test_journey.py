"""The main job, from a photo to approved feedback, as two people do it in their browsers.

Against the service as `make run` starts it: gunicorn, worker, beat and the bundled weights.
"""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import NewContext, Site, caption_photo
from tests.stack import servers

pytestmark = [pytest.mark.e2e, pytest.mark.stack]

IDEAL = "green hills under a clear sky, drawn by a test"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Site]:
    with servers.captioner(tmp_path_factory.mktemp("journey")) as service:
        yield service


@pytest.fixture
def site(service: servers.Site) -> Site:
    [password] = re.findall(r"admin / (\S+)", service.setup_output)
    return Site(service.url, "admin", password)


def test_a_photo_is_captioned_corrected_and_its_correction_approved(
    page: Page, site: Site, new_context: NewContext
) -> None:
    caption_photo(page)
    expect(page.get_by_role("heading", level=1)).not_to_be_empty()
    photo = page.locator("figure img")
    expect(photo).to_be_visible()
    assert photo.evaluate("image => image.complete && image.naturalWidth") > 0

    page.get_by_label("Your own caption").fill(IDEAL)
    page.get_by_role("radio", name="3").check()
    expect(page.get_by_text("Saved. Thank you!")).to_be_visible()
    expect(page.get_by_text("Waiting for review")).to_be_visible()

    admin = new_context().new_page()
    admin.goto("/login")
    admin.get_by_label("User name").fill(site.username)
    admin.get_by_label("Password").fill(site.password)
    admin.get_by_role("main").get_by_role("button", name="Sign in").click()
    admin.get_by_role("link", name="Admin", exact=True).click()
    admin.get_by_role("main").get_by_role("link", name="Feedback", exact=True).click()
    row = admin.get_by_role("row").filter(has=admin.locator("ins, span", has_text=re.compile("hills")))
    row.get_by_role("link").first.click()
    admin.get_by_role("button", name="Approve").click()
    expect(admin.get_by_text("Approved: 1.")).to_be_visible()

    page.reload()
    expect(page.get_by_text("Approved: the next training reads it")).to_be_visible()
    expect(page.get_by_role("radio", name="3")).to_be_checked()
    expect(page.get_by_label("Your own caption")).to_have_value(IDEAL)
