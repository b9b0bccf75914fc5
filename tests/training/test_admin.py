from __future__ import annotations

from importlib import import_module

import pytest
from django.apps import apps
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse
from django_celery_beat.models import PeriodicTask

from training import execution, services
from training.judging.charts import line_chart
from training.models import TrainingRun

LIST = "admin:training_trainingrun_changelist"


@pytest.fixture
def staff(reviewer: User, client: Client) -> Client:
    client.force_login(reviewer)
    return client


def act(client: Client, run: TrainingRun, **data):
    return client.post(reverse("admin:training_trainingrun_act", args=[run.pk]), data, follow=True)


def test_train_now_queues_a_run_and_says_so(base, staff: Client) -> None:
    page = staff.post(reverse("admin:training_trainingrun_start"), follow=True)
    assert "the trainer takes it from here" in page.text
    assert TrainingRun.objects.get().requested_by.username == "rita"
    again = staff.post(reverse("admin:training_trainingrun_start"), follow=True)
    assert "Another run is queued or running" in again.text


def test_a_finished_run_shows_curves_figures_and_captions_before_and_after(
    base, approved, staff: Client
) -> None:
    run = services.run_request()
    execution.run_execute(run.pk)
    page = staff.get(reverse("admin:training_trainingrun_change", args=[run.pk]))
    for text in (
        "<svg",
        "insufficient evidence",
        "held-out feedback photos",
        "CIDEr-D",
        "Before and after",
        "<img",
    ):
        assert text in page.text
    assert staff.get(reverse(LIST)).status_code == 200


def test_overruling_needs_a_reason_and_is_shown(base, approved, staff: Client) -> None:
    run = services.run_request()
    execution.run_execute(run.pk)
    assert "Say why" in act(staff, run, action="passed", reason="").text
    page = act(staff, run, action="passed", reason="I looked at them all")
    assert "I looked at them all" in page.text
    run.refresh_from_db()
    assert run.promoted_to == "champion"


def test_cancel(base, staff: Client) -> None:
    run = services.run_request()
    act(staff, run, action="cancel")
    run.refresh_from_db()
    assert run.status == TrainingRun.Status.CANCELLED


@pytest.mark.parametrize("permission", ["", "view_trainingrun"])
def test_who_may_only_look_cannot_act(base, client: Client, permission: str) -> None:
    looker = User.objects.create_user("lou", is_staff=True)
    if permission:
        looker.user_permissions.add(Permission.objects.get(codename=permission))
    client.force_login(looker)
    run = services.run_request()
    assert client.post(reverse("admin:training_trainingrun_start")).status_code == 403
    assert act(client, run, action="cancel").status_code == 403
    if permission:
        page = client.get(reverse("admin:training_trainingrun_change", args=[run.pk]))
        assert 'value="cancel"' not in page.text


def test_buttons_are_not_links(base, staff: Client) -> None:
    assert staff.get(reverse("admin:training_trainingrun_start")).status_code == 405


def test_the_schedule_is_an_entry_that_the_admin_edits(base, staff: Client) -> None:
    # A test that flushes the database may have come before and taken what the migration added.
    import_module("training.migrations.0002_schedule").schedule_add(apps, None)
    entry = PeriodicTask.objects.get(task="training.tasks.run_start_task")
    assert entry.enabled
    page = staff.get(reverse("admin:django_celery_beat_periodictask_change", args=[entry.pk]))
    assert page.status_code == 200


def test_charts_escape_names_and_need_points() -> None:
    assert line_chart({"a": []}, title="x") == ""
    drawn = line_chart({"<b>": [(0, 1.0), (5, 0.5)]}, title="losses")
    assert "&lt;b&gt;" in drawn
    assert "<b>" not in drawn


def test_a_run_that_ended_without_a_candidate_offers_nothing_to_decide(base, staff: Client) -> None:
    run = TrainingRun.objects.create(
        trigger="person", status="unchanged", error="Exactly this was learned before."
    )
    page = staff.get(reverse("admin:training_trainingrun_change", args=[run.pk]))
    assert "Exactly this was learned before." in page.text
    assert "overrule-reason" not in page.text


def test_data_are_told_in_words_and_rows_that_say_nothing_are_left_out(base, staff: Client) -> None:
    run = execution.run_claim(services.run_request().pk)
    TrainingRun.objects.update(
        counts={"train_corrections": 26, "train_ratings": 1, "authors": 3, "left_out_duplicate": 0}
    )
    page = staff.get(reverse("admin:training_trainingrun_change", args=[run.pk]))
    assert "26 corrections to learn from, and 1 rating, by 3 authors" in page.text
    assert "Last sign of life 0 second" in page.text or "Last sign of life 1 second" in page.text
    for nothing in ("left out", "Overruled", "What ended it", "Verdict"):
        assert nothing not in page.text
