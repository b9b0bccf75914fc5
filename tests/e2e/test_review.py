"""A reviewer's day in a browser: a hundred items by a hundred keys, undo, edits, and the pages for people around it."""

import uuid

import pytest
from django.contrib.auth.models import Permission, User
from django.utils import timezone
from playwright.sync_api import Page, expect

from captioner.captions.captions import caption_create
from captioner.models import Caption, Feedback, Owner
from models_registry.models import Alias, ModelVersion, Promotion
from tests.e2e.conftest import NewContext, Site
from tests.e2e.test_design import PHONE, overflow, sign_in, view, violations
from tests.photos import draw_scene
from training.models import TrainingRun

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]

PHOTOS = 20


def feedback_make(count: int) -> list[Feedback]:
    """`count` corrections that wait, the head of the queue first; they share `PHOTOS` photos."""
    first = [
        caption_create(draw_scene(number), owner=Owner(visitor=uuid.uuid4()), source=Caption.Source.WEB)
        for number in range(min(count, PHOTOS))
    ]
    captions = []
    for number in range(count):
        copy = (
            Caption.objects.get(pk=first[number % PHOTOS].pk)
            if number < PHOTOS
            else captions[number % PHOTOS]
        )
        fields = {field.attname: getattr(copy, field.attname) for field in Caption._meta.concrete_fields}
        captions.append(Caption(**fields | {"id": uuid.uuid4(), "visitor": uuid.uuid4()}))
    Caption.objects.bulk_create(captions, batch_size=500)
    Feedback.objects.bulk_create(
        [
            Feedback(caption=caption, ideal_caption=f"a house number {number}", priority=float(-number))
            for number, caption in enumerate(captions)
        ],
        batch_size=500,
    )
    return list(Feedback.objects.pending())


@pytest.fixture
def reviewing(new_context: NewContext, site: Site) -> Page:
    """A page of somebody who may review, and nothing else."""
    user = User.objects.create_user("rev", password="correct horse battery")
    user.user_permissions.add(Permission.objects.get(codename="review_feedback"))
    page = new_context().new_page()
    sign_in(page, Site(site.url, "rev", "correct horse battery"))
    return page


def settled(page: Page, left: int) -> None:
    expect(page.locator("[data-left]")).to_have_text(str(left))


def current(page: Page) -> str:
    return str(page.locator("[data-review-shown] > :not([hidden])").get_attribute("data-item"))


@pytest.mark.stack  # for its ten thousand rows
def test_a_hundred_items_take_a_hundred_keys_and_undo_returns_the_last(reviewing: Page) -> None:
    rows = feedback_make(10_000)
    page = reviewing
    page.goto("/")
    page.get_by_role("link", name="Review").click()
    settled(page, 10_000)
    for row in rows[:100]:
        expect(page.locator(f'[data-item="{row.pk}"]')).to_be_visible()
        page.wait_for_timeout(100)  # nobody decides faster than that
        page.keyboard.press("a")
    last = rows[99]
    page.keyboard.press("u")
    expect(page.locator(f'[data-item="{last.pk}"]')).to_be_visible()
    expect(page.get_by_text(f"Feedback {last.pk} is back in review.")).to_be_visible()
    settled(page, 9_901)
    assert Feedback.objects.filter(status="approved").count() == 99
    assert Feedback.objects.filter(status="approved", pk__in=[row.pk for row in rows[:99]]).count() == 99
    assert Feedback.objects.get(pk=last.pk).status == "pending"


def test_the_next_item_waits_for_no_answer(reviewing: Page) -> None:
    rows = feedback_make(5)
    page = reviewing
    page.goto("/review/")
    page.route("**/review/*", lambda route: None if route.request.method == "POST" else route.fallback())
    for row in rows[:3]:
        item = page.locator(f'[data-item="{row.pk}"]')
        expect(item).to_be_visible()
        assert item.locator("img").evaluate("image => image.decode().then(() => image.naturalWidth)")
        page.keyboard.press("a")
    expect(page.locator(f'[data-item="{rows[3].pk}"]')).to_be_visible()
    expect(page.locator("[data-left]")).to_have_text("2")
    assert not Feedback.objects.exclude(status="pending").exists()
    page.unroute("**/review/*")
    expect(page.get_by_text(f"Feedback {rows[2].pk}: approved.")).to_be_visible()
    assert Feedback.objects.filter(status="approved").count() == 3, "sent one after the other"


def test_every_key_does_what_it_says_and_can_be_switched_off(reviewing: Page) -> None:
    rows = feedback_make(8)
    page = reviewing
    page.goto("/review/")
    page.keyboard.press("e")
    expect(page.get_by_label("The caption as it should be").first).to_be_focused()
    page.keyboard.type(" that is red")  # no key of these decides anything
    page.keyboard.press("Control+Enter")
    settled(page, 7)
    page.keyboard.press("r")
    page.keyboard.press("2")
    settled(page, 6)
    page.keyboard.press("d")
    settled(page, 5)
    page.keyboard.press("ArrowRight")
    assert current(page) == str(rows[4].pk)
    page.keyboard.press("ArrowLeft")
    assert current(page) == str(rows[3].pk)
    page.keyboard.press("?")
    switch = page.get_by_label("Use single keys on this browser")
    switch.uncheck()
    page.locator("h1").click()
    page.keyboard.press("a")
    assert current(page) == str(rows[3].pk)
    page.reload()
    expect(switch).not_to_be_checked()
    expect(page.locator("[data-done]")).to_have_text("3")
    said = {row.pk: row for row in Feedback.objects.all()}
    assert said[rows[0].pk].ideal_caption == "a house number 0 that is red"
    assert [said[row.pk].status for row in rows[:4]] == ["approved", "rejected", "rejected", "pending"]
    assert [said[row.pk].rejection for row in rows[1:3]] == ["worse", "duplicate"]


def test_what_is_not_saved_comes_back_and_says_so(reviewing: Page) -> None:
    rows = feedback_make(3)
    page = reviewing
    page.goto("/review/")
    page.route(f"**/review/{rows[0].pk}*", lambda route: route.abort(), times=1)
    page.keyboard.press("a")
    expect(page.get_by_text("was not saved")).to_be_visible()
    expect(page.locator(f'[data-item="{rows[0].pk}"]')).to_be_visible()
    Feedback.objects.filter(pk=rows[0].pk).update(ideal_caption="two houses", updated_at=timezone.now())
    page.keyboard.press("a")
    expect(page.get_by_text("changed while you looked at it")).to_be_visible()
    expect(page.locator("ins", has_text="two houses")).to_be_visible()
    settled(page, 3)
    page.keyboard.press("a")
    settled(page, 2)


def test_a_reviewer_needs_no_script(new_context: NewContext, site: Site) -> None:
    feedback_make(4)
    page = new_context(java_script_enabled=False).new_page()
    sign_in(page, site)
    page.get_by_role("link", name="Review").click()
    page.get_by_role("button", name="Approve", exact=True).click()
    expect(page.get_by_text(": approved.")).to_be_visible()
    page.get_by_role("link", name="Many at once").click()
    page.get_by_label("all 3 that the filter finds").check()
    page.get_by_role("button", name="Approve").click()
    page.get_by_role("button", name="Approve 3").click()
    expect(page.get_by_text("Approved: 3.")).to_be_visible()
    page.get_by_role("button", name="Undo my last decision").click()
    expect(page.get_by_text("3 are back in review.")).to_be_visible()


def versions_make() -> TrainingRun:
    base, learned = (
        ModelVersion.objects.create(id=name, model_name=name, manifest={}) for name in ("first", "second")
    )
    Alias.objects.create(name="champion", version=base)
    Promotion.objects.create(alias="champion", version=base, reason="a test")
    return TrainingRun.objects.create(
        trigger="person",
        status="finished",
        champion=base,
        candidate=learned,
        verdict="rejected",
        report={"holdout": {"mean": 1.2, "lower": -0.4, "upper": 2.6, "photos": 220, "groups": 214}},
    )


@view
def test_review_and_versions_are_accessible_and_fit_their_window(
    new_context: NewContext, site: Site, size: dict, scheme: str
) -> None:
    rows = feedback_make(3)
    Feedback.objects.filter(pk=rows[0].pk).update(disagrees_with=rows[1], rating=2)
    versions_make()
    page = new_context(viewport=size, color_scheme=scheme).new_page()
    sign_in(page, site)
    for address in (
        "/review/",
        "/review/?rating=low",
        "/review/?rating=high",
        "/review/?view=list",
        "/review/log",
        "/review/votes",
        "/review/blind",
        "/models/",
    ):
        page.goto(address)
        if address == "/review/":
            page.keyboard.press("e")
            page.keyboard.press("Escape")
            page.keyboard.press("r")
            page.keyboard.press("?")
        assert violations(page) == "", address
        assert overflow(page) == [0, 0], address
        page.set_viewport_size(size)
    page.goto("/admin/")
    assert violations(page, {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}) == ""
    if size == PHONE:
        assert overflow(page) == [0, 0]


def test_progress_moves_by_itself_and_ends_with_what_came_of_it(new_context: NewContext, site: Site) -> None:
    run = versions_make()
    TrainingRun.objects.update(
        status="running", stage="descent", done=1, total=9, heartbeat_at=timezone.now()
    )
    page = new_context().new_page()
    sign_in(page, site)
    page.goto("/admin/")
    expect(page.get_by_text("descent, 1 of 9")).to_be_visible()
    page.evaluate("window.isFirst = true")
    TrainingRun.objects.update(done=5)
    expect(page.get_by_text("descent, 5 of 9")).to_be_visible()
    assert page.evaluate("window.isFirst")
    TrainingRun.objects.filter(pk=run.pk).update(status="finished", finished_at=timezone.now())
    expect(page.get_by_role("button", name="Train now")).to_be_visible()
    page.get_by_role("link", name="All versions").click()
    expect(page.get_by_role("heading", name="Version 1 writes the captions", level=1)).to_be_visible()
