"""The front page of the admin, and the page of the versions: what people read there, and who gets which buttons."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone

from captioner.captions.captions import caption_create
from captioner.captions.feedback import feedback_submit
from captioner.models import Caption, FeedbackUse, Owner
from models_registry import promotions, versions
from models_registry.manifest import Lineage
from models_registry.models import ModelVersion, Promotion
from tests.photos import draw_scene
from training.models import Comparison, HeldOutPhoto, TrainingRun


@pytest.fixture
def learned(base: ModelVersion, tiny_checkpoint) -> TrainingRun:
    """A finished run that made the second version, which serves."""
    candidate = versions.version_publish(
        tiny_checkpoint,
        model_name="tiny-learned",
        origin="test",
        licence="none",
        lineage=Lineage(base=base.pk),
    )
    promotions.version_promote(candidate, reason="a test", cause=Promotion.Cause.RUN)
    return TrainingRun.objects.create(
        trigger="person",
        status="finished",
        base=base,
        champion=base,
        candidate=candidate,
        verdict="passed",
        promoted_to="champion",
        counts={"train_corrections": 51, "authors": 3},
        report={
            "reason": "Better.",
            "holdout": {"mean": 4.2, "lower": 1.0, "upper": 7.4, "photos": 220, "groups": 214},
        },
        finished_at=timezone.now(),
    )


@pytest.fixture
def staff(reviewer: User, client: Client) -> Client:
    client.force_login(reviewer)
    return client


def page_of(client: Client, address: str) -> str:
    response = client.get(address)
    assert response.status_code == 200
    return re.sub(r"\s+", " ", response.text)


# --- /models ---


def test_everybody_reads_of_the_versions_in_plain_words(learned: TrainingRun) -> None:
    page = page_of(Client(), "/models/")
    for told in (
        "Version 2 writes the captions</h1>",
        "It learned from 51 corrections by 3 people, starting from version 1.",
        "On 214 photos kept aside it came closer to what people wrote than version 1: +4.2, between +1.0 and +7.4 "
        "points. It was let through.",
        "It was not taught here: random.",
        "<title>How much closer each version came to what people wrote: version 2 +4.2, between +1.0 and +7.4</title>",
    ):
        assert told in page
    for button in ("Train now", "Change what serves", "cider", "manage.py"):
        assert button not in page


@pytest.mark.parametrize(
    ("lower", "upper", "told"),
    [
        (-6.0, -1.0, "it was further from what people wrote than"),
        (-1.0, 2.0, "no difference from version 1 is sure"),
    ],
)
def test_what_is_not_better_is_not_said_to_be(
    learned: TrainingRun, lower: float, upper: float, told: str
) -> None:
    gain = {"mean": (lower + upper) / 2, "lower": lower, "upper": upper, "photos": 9, "groups": 9}
    TrainingRun.objects.update(report={"holdout": gain}, verdict="rejected")
    page = page_of(Client(), "/models/")
    assert told in page
    assert "It was turned down." in page


def test_before_and_after_are_shown_of_ones_own_photos_and_all_to_reviewers(
    learned: TrainingRun, fake_engine, user: User, other_user: User
) -> None:
    caption = caption_create(draw_scene(1), owner=Owner(user=user), source=Caption.Source.WEB)
    HeldOutPhoto.objects.create(photo=caption.photo)
    Comparison.objects.create(run=learned, photo=caption.photo, champion="a thing", candidate="a red thing")
    seen = {}
    for name in ("ada", "bob"):
        client = Client()
        client.force_login(User.objects.get(username=name))
        seen[name] = page_of(client, "/models/")
    assert "a red thing" in seen["ada"]
    assert f"/api/v1/captions/{caption.pk}/photo" in seen["ada"]
    assert "a red thing" not in seen["bob"]
    other_user.user_permissions.add(Permission.objects.get(codename="review_feedback"))
    client.force_login(User.objects.get(username="bob"))
    page = page_of(client, "/models/")
    assert "a red thing" in page
    assert client.get(re.search(r'src="(/review/held-out/\d+)"', page)[1]).status_code == 200


def test_what_is_voted_on_blind_is_not_given_away(learned: TrainingRun, fake_engine, user: User) -> None:
    promotions.champion_rollback(reason="a test")
    TrainingRun.objects.update(verdict="insufficient evidence", promoted_to="")
    caption = caption_create(draw_scene(1), owner=Owner(user=user), source=Caption.Source.WEB)
    Comparison.objects.create(run=learned, photo=caption.photo, champion="a thing", candidate="a red thing")
    client = Client()
    client.force_login(user)
    assert "a red thing" not in page_of(client, "/models/")


def test_who_taught_a_version_reads_so(learned: TrainingRun, fake_engine, user: User) -> None:
    caption = caption_create(draw_scene(1), owner=Owner(user=user), source=Caption.Source.WEB)
    feedback, _ = feedback_submit(caption, ideal_caption="a red thing")
    FeedbackUse.objects.create(feedback=feedback, version=learned.candidate, role="taught")
    client = Client()
    assert "You taught it" not in page_of(client, "/models/")
    client.force_login(user)
    assert "You taught it 1 of them." in page_of(client, "/models/")


def test_staff_change_what_serves_there(learned: TrainingRun, staff: Client) -> None:
    page = page_of(staff, "/models/")
    assert "Go back to version 1" in page
    assert "Train now" in page
    address = f"/admin/models_registry/modelversion/{learned.candidate_id}/act"
    fields = {"action": "rollback", "reason": "it was better", "next": "/models/"}
    response = staff.post(address, fields, follow=True)
    assert response.redirect_chain[-1][0] == "/models/"
    assert "Version 1 writes the captions" in response.text
    elsewhere = staff.post(address, fields | {"next": "https://evil.example/"})
    assert elsewhere.url.startswith("/admin/")


# --- The front page ---


def test_the_front_page_says_what_there_is_to_do(
    learned: TrainingRun, fake_engine, staff: Client, user: User
) -> None:
    caption = caption_create(draw_scene(1), owner=Owner(user=user), source=Caption.Source.WEB)
    feedback_submit(caption, ideal_caption="a red thing")
    page = page_of(staff, "/admin/")
    for told in (
        "Waiting for review: 1",
        "It made version 2, which was let through and served.",
        "Version 2 writes the captions",
        'action="/admin/training/trainingrun/start"',
        "<summary>Lists of the scheduler</summary>",
    ):
        assert told in page
    assert page.index("Waiting for review") < page.index("/admin/captioner/feedback/")
    assert page.index("<summary>Lists of the scheduler") < page.index(
        "/admin/django_celery_beat/crontabschedule/"
    )


def test_who_may_only_review_is_led_to_review(base: ModelVersion, client: Client) -> None:
    user = User.objects.create_user("sam", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="review_feedback"))
    client.force_login(user)
    page = page_of(client, "/admin/")
    assert 'href="/review/"' in page
    for other in ("Train now", "The last run", "Lists of the scheduler"):
        assert other not in page


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (
            {"status": "running", "stage": "descent", "minutes": 14},
            "The trainer has been silent for 14\xa0minutes.",
        ),
        (
            {"status": "queued", "minutes": 14},
            "A run has been waiting for 14\xa0minutes, and no trainer takes it.",
        ),
        (
            {"status": "quarantined", "error": "No space left", "minutes": 1},
            "The last run failed: No space left",
        ),
    ],
)
def test_trouble_is_told(base: ModelVersion, staff: Client, fields: dict, told: str) -> None:
    minutes = fields.pop("minutes")
    run = TrainingRun.objects.create(trigger="person", **fields)
    then = timezone.now() - timedelta(minutes=minutes)
    TrainingRun.objects.filter(pk=run.pk).update(created_at=then, heartbeat_at=then)
    assert told.replace("\xa0", " ") in page_of(staff, "/admin/")


@pytest.mark.parametrize("address", ["/admin/", "/models/"])
def test_progress_is_fetched_and_pages_load_no_second_time(
    base: ModelVersion, staff: Client, address: str
) -> None:
    run = TrainingRun.objects.create(
        trigger="person", status="running", stage="descent", done=3, total=9, heartbeat_at=timezone.now()
    )
    page = page_of(staff, address)
    assert 'data-live="5"' in page
    assert "3 of 9" in page
    for each in (page, page_of(staff, f"/admin/training/trainingrun/{run.pk}/change/")):
        assert 'http-equiv="refresh"' not in re.sub(r"<noscript>.*?</noscript>", "", each)
