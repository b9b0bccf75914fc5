"""A real Chromium, and the site it visits."""

import io
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Browser, BrowserContext, FilePayload, Page, expect, sync_playwright
from pytest_django.live_server_helper import LiveServer

from captioner.celery import app
from captioner.jobs import services as jobs
from captioner.jobs import worker
from captioner.jobs.archives import archive_photos
from captioner.models import Owner
from tests.conftest import FakeEngine
from tests.photos import draw_landscape, zip_of
from tests.processes import missing

_CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_PATIENCE = 20_000  # milliseconds, for a machine that is busy with something else
expect.set_options(timeout=_PATIENCE)


@dataclass(frozen=True, slots=True)
class Site:
    """Where Captioner runs, and how to sign in there as somebody who may review."""

    url: str
    username: str
    password: str


@pytest.fixture
def site(live_server: LiveServer, fake_engine: FakeEngine) -> Site:
    User.objects.create_superuser("rita", password="correct horse battery")
    return Site(live_server.url, "rita", "correct horse battery")


@pytest.fixture
def job(fake_engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, site: Site) -> str:
    """The address of a job of whoever `site` signs in, half done."""
    monkeypatch.setattr("captioner.serving.process.serving.refresh", lambda **_: fake_engine)
    monkeypatch.setattr(app, "send_task", lambda *_, **__: None)
    files = {"hills.jpg": draw_landscape(), "notes.txt": b"no photo", "more.jpg": draw_landscape()}
    photos = archive_photos(io.BytesIO(zip_of(files)), max_photos=10, max_bytes=10**8)
    made = jobs.job_create(photos, owner=Owner(user=User.objects.get(username=site.username)))
    worker.job_photos_caption(made.pk, [0, 1])
    return f"/jobs/{made.pk}"


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Headless Chromium. Without one the tests are skipped, saying so; where `CI` is set they fail."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        missing("No Chromium, chromium-browser or google-chrome is installed here")
    with pytest.MonkeyPatch.context() as patch, sync_playwright() as playwright:
        # Playwright keeps an event loop in this thread, in which Django would refuse to use its database.
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
        browser = playwright.chromium.launch(executable_path=path, args=_CHROMIUM_FLAGS)
        yield browser
        browser.close()


NewContext = Callable[..., BrowserContext]


@pytest.fixture
def new_context(browser: Browser, site: Site) -> Iterator[NewContext]:
    """Makes a visitor of `site`: a browser context with the options of Playwright's `new_context`.

    An error in the scripts of any page fails the test, at its end: what a listener raises would end Playwright's loop.
    """
    contexts: list[BrowserContext] = []
    errors: list[str] = []

    def make(**options) -> BrowserContext:
        contexts.append(browser.new_context(base_url=site.url, **options))
        contexts[-1].set_default_timeout(_PATIENCE)
        contexts[-1].on("weberror", lambda event: errors.append(str(event.error)))
        return contexts[-1]

    yield make
    for context in contexts:
        context.close()
    assert not errors


@pytest.fixture
def page(new_context: NewContext) -> Page:
    """A page of a fresh visitor."""
    return new_context(permissions=["clipboard-read", "clipboard-write"]).new_page()


def photo_file(name: str = "landscape.jpg", size: tuple[int, int] = (640, 480)) -> FilePayload:
    return {"name": name, "mimeType": "image/jpeg", "buffer": draw_landscape(size)}


def caption_photo(page: Page) -> None:
    """Upload a photo through the form and arrive at its result."""
    page.goto("/")
    page.set_input_files("#image", photo_file())
    page.get_by_role("button", name="Write the caption").click()
    page.wait_for_url("**/captions/*")
