"""What a verdict does to what serves: the gate's, a reviewer's, and whose attempt was cut short."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from models_registry import promotions, storage, versions
from models_registry.exceptions import StoreUnavailable
from models_registry.manifest import Lineage
from models_registry.models import Alias, ModelVersion, Promotion
from training import decisions, execution, services
from training.exceptions import RunLost, RunRefused
from training.judging.gate import Decision, Verdict
from training.learning import pipeline
from training.models import TrainingRun

Decided = Callable[[str], TrainingRun]


def publish(folder: Path, name: str, **options) -> ModelVersion:
    return versions.version_publish(folder, model_name=name, origin="test", licence="none", **options)


@pytest.fixture
def candidate(base: ModelVersion, tiny_checkpoint: Path) -> ModelVersion:
    return publish(tiny_checkpoint, "tiny-learned", lineage=Lineage(parent=base.pk, base=base.pk))


@pytest.fixture
def newer(base: ModelVersion, tiny_checkpoint: Path) -> ModelVersion:
    return publish(tiny_checkpoint, "newer")


@pytest.fixture
def decided(base: ModelVersion, candidate: ModelVersion) -> Decided:
    """A finished run whose gate said `verdict`."""

    def make(verdict: str) -> TrainingRun:
        return TrainingRun.objects.create(
            trigger="person",
            status="finished",
            base=base,
            champion=base,
            candidate=candidate,
            verdict=verdict,
            finished_at=timezone.now(),
        )

    return make


# --- A reviewer rejects ---


def test_rejecting_what_serves_brings_the_champion_before_it_back(
    base, candidate, decided, reviewer: User
) -> None:
    run = decided("passed")
    promotions.version_promote(candidate, reason="Passed the gate")
    TrainingRun.objects.update(promoted_to="champion")
    told = decisions.run_overrule(run, "rejected", reason="It invents giraffes", by=reviewer)
    assert promotions.champion_get() == base
    assert told == f"{base} is the champion again."
    run.refresh_from_db()
    assert (run.final_verdict, run.promoted_to) == ("rejected", "")
    entry = Promotion.objects.first()
    assert (entry.action, entry.promoted_by) == (Promotion.Action.ROLLBACK, reviewer)
    assert "It invents giraffes" in entry.reason


def test_rejecting_the_challenger_takes_it_back(base, candidate, decided, reviewer: User) -> None:
    run = decided("passed")
    promotions.version_promote(candidate, alias=Alias.Name.CHALLENGER, reason="Passed the gate")
    told = decisions.run_overrule(run, "rejected", reason="no", by=reviewer)
    assert promotions.challenger_get() is None
    assert "no challenger any more" in told


def test_rejecting_what_was_replaced_since_leaves_the_newer_champion(
    base, candidate, newer, decided, reviewer: User
) -> None:
    run = decided("passed")
    promotions.version_promote(candidate, reason="Passed the gate")
    promotions.version_promote(newer, reason="by hand")
    told = decisions.run_overrule(run, "rejected", reason="no", by=reviewer)
    assert promotions.champion_get() == newer
    assert "does not serve" in told


def test_the_first_champion_cannot_be_rejected_for_there_is_none_before_it(
    base, candidate, decided, reviewer: User
) -> None:
    run = decided("passed")
    TrainingRun.objects.update(candidate=base)
    with pytest.raises(RunRefused, match="no earlier champion"):
        decisions.run_overrule(run, "rejected", reason="no", by=reviewer)
    run.refresh_from_db()
    assert run.final_verdict == "passed", "what could not be done is not claimed"


# --- A reviewer passes ---


def test_passing_what_was_judged_against_another_champion_is_refused_and_names_both(
    base, candidate, newer, decided, reviewer: User
) -> None:
    run = decided("rejected")
    promotions.version_promote(newer, reason="by hand")
    with pytest.raises(RunRefused) as refused:
        decisions.run_overrule(run, "passed", reason="I like it", by=reviewer)
    assert promotions.champion_get() == newer
    for name in (base.pk, newer.pk, "promote"):
        assert name in str(refused.value)
    run.refresh_from_db()
    assert run.final_verdict == "rejected"


@pytest.mark.parametrize(
    ("policy", "told"),
    [("champion", "is the champion"), ("challenger", "is the challenger"), ("nothing", "")],
)
def test_passing_says_what_became_of_the_candidate(
    base, candidate, decided, reviewer: User, settings, policy: str, told: str
) -> None:
    settings.TRAINING_PROMOTE_TO = policy
    run = decided("rejected")
    assert told in decisions.run_overrule(run, "passed", reason="I like it", by=reviewer)
    run.refresh_from_db()
    assert run.promoted_to == ("" if policy == "nothing" else policy)


def test_the_store_is_asked_outside_of_the_runs_lock(
    base, candidate, decided, reviewer: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, verify = decided("rejected"), storage.version_verify
    depth = len(connection.savepoint_ids)
    seen = []

    def look(*arguments) -> None:
        seen.append(len(connection.savepoint_ids))
        verify(*arguments)

    monkeypatch.setattr(storage, "version_verify", look)
    decisions.run_overrule(run, "passed", reason="I like it", by=reviewer)
    assert seen == [depth]


@pytest.mark.parametrize("broken", ["store", "files", "retired"])
def test_what_the_registry_refuses_is_said_on_the_page_and_in_the_terminal(
    base, candidate, decided, reviewer: User, client: Client, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    run = decided("rejected")
    if broken == "retired":
        ModelVersion.objects.filter(pk=candidate.pk).update(retired_at=timezone.now())
    elif broken == "files":
        monkeypatch.setattr(ModelVersion, "manifest", {})
        ModelVersion.objects.filter(pk=candidate.pk).update(manifest={})
    else:
        monkeypatch.setattr(storage, "version_verify", _store_down)
    client.force_login(reviewer)
    act = reverse("admin:training_trainingrun_act", args=[run.pk])
    page = client.post(act, {"action": "passed", "reason": "I like it"}, follow=True)
    assert page.status_code == 200
    assert 'class="error"' in page.text
    with pytest.raises(CommandError):
        call_command("train", "overrule", run.pk, verdict="passed", reason="I like it", by="rita")
    run.refresh_from_db()
    assert run.final_verdict == "rejected"


def _store_down(*_) -> None:
    raise StoreUnavailable("The store cannot be reached.")


def test_overruling_proven_harm_takes_a_second_click_that_says_so(
    base, candidate, decided, reviewer: User, client: Client
) -> None:
    run = decided("rejected")
    TrainingRun.objects.update(is_harmful=True, report={"reason": "proven to be worse: anchor photos."})
    client.force_login(reviewer)
    act = reverse("admin:training_trainingrun_act", args=[run.pk])
    page = client.post(act, {"action": "passed", "reason": "I like it"}, follow=True)
    assert "It was proven to be worse" in page.text
    assert 'value="passed"' not in page.text
    assert "although it does harm" in page.text
    assert promotions.champion_get() == base
    with pytest.raises(CommandError, match="proven to be worse"):
        call_command("train", "overrule", run.pk, verdict="passed", reason="I like it", by="rita")
    page = client.post(act, {"action": "passed_despite_harm", "reason": "I like it"}, follow=True)
    assert promotions.champion_get() == candidate
    assert "overruling proven harm" in Promotion.objects.first().reason


@pytest.mark.parametrize("verdict", ["passed", "rejected"])
def test_a_reason_that_is_no_text_is_refused(decided, reviewer: User, client: Client, verdict: str) -> None:
    run = decided("insufficient evidence")
    client.force_login(reviewer)
    act = reverse("admin:training_trainingrun_act", args=[run.pk])
    page = client.post(act, {"action": verdict, "reason": "a\0b"}, follow=True)
    assert "characters that are no text" in page.text
    run.refresh_from_db()
    assert run.overruled_to == ""


# --- Who may ---


@pytest.fixture
def trainer(client: Client, db: None) -> Client:
    """Somebody who may act on runs, but not on what serves."""
    trainer = User.objects.create_user("theo", is_staff=True)
    names = ("view_trainingrun", "change_trainingrun")
    trainer.user_permissions.set(Permission.objects.filter(codename__in=names))
    client.force_login(trainer)
    return client


def test_a_verdict_that_changes_what_serves_needs_the_permission_for_it(
    base, candidate, decided, trainer: Client
) -> None:
    run = decided("insufficient evidence")
    act = reverse("admin:training_trainingrun_act", args=[run.pk])
    page = trainer.get(reverse("admin:training_trainingrun_change", args=[run.pk]))
    assert 'value="passed"' not in page.text
    assert 'value="rejected"' in page.text, "it changes nothing that serves"
    assert trainer.post(act, {"action": "passed", "reason": "mine"}).status_code == 403
    assert promotions.champion_get() == base
    trainer.post(act, {"action": "rejected", "reason": "no"})
    run.refresh_from_db()
    assert run.final_verdict == "rejected"


def test_taking_back_what_serves_needs_it_too(base, candidate, decided, trainer: Client) -> None:
    run = decided("passed")
    promotions.version_promote(candidate, reason="Passed the gate")
    page = trainer.get(reverse("admin:training_trainingrun_change", args=[run.pk]))
    assert 'value="rejected"' not in page.text
    act = reverse("admin:training_trainingrun_act", args=[run.pk])
    assert trainer.post(act, {"action": "rejected", "reason": "no"}).status_code == 403
    assert promotions.champion_get() == candidate


# --- An attempt that was cut short after the verdict ---


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch, candidate: ModelVersion) -> list[ModelVersion]:
    """Replaces the work by a verdict, "passed"; lists the champions that candidates were judged against."""
    champions: list[ModelVersion] = []

    def work(run, snapshot, base, champion, tick) -> pipeline.Outcome:
        champions.append(champion)
        folder = services.run_folder(run)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "features.npy").touch()
        return pipeline.Outcome(
            candidate,
            Decision(Verdict.PASSED, "because", (), None, None),
            {"verdict": "x"},
            {},
            [],
            snapshot,
            frozenset(),
        )

    monkeypatch.setattr(pipeline, "run_work", work)
    return champions


@pytest.fixture
def died_after_promotion(base, approved, judged, monkeypatch: pytest.MonkeyPatch) -> TrainingRun:
    """Its process was killed when the candidate served and nobody had written that down."""
    run = services.run_request()

    def die(*_, **__) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(execution, "_run_end", die)
        with pytest.raises(KeyboardInterrupt):
            execution.run_execute(run.pk)
    TrainingRun.objects.update(heartbeat_at=timezone.now() - timedelta(days=1))
    return run


def test_a_candidate_that_serves_already_is_not_judged_again(
    base, candidate, judged, died_after_promotion: TrainingRun
) -> None:
    run = execution.run_execute(died_after_promotion.pk)
    assert judged == [base], "never against itself"
    assert (run.status, run.attempts, run.verdict, run.promoted_to) == ("finished", 2, "passed", "champion")
    assert promotions.champion_get() == candidate


def test_what_was_taken_back_meanwhile_is_not_promoted_again(
    base, candidate, died_after_promotion: TrainingRun
) -> None:
    promotions.champion_rollback(reason="It invents giraffes")
    execution.run_execute(died_after_promotion.pk)
    assert promotions.champion_get() == base


# --- Photos do not outlive the run ---


def folder_of(run: TrainingRun) -> Path:
    folder = services.run_folder(run)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "features.npy").touch()
    return folder


def stale(run: TrainingRun) -> None:
    TrainingRun.objects.filter(pk=run.pk).update(heartbeat_at=timezone.now() - timedelta(days=1))


def test_cancelling_a_run_that_nobody_works_on_removes_its_folder(base) -> None:
    for takes in (lambda run: None, stale):
        run = execution.run_claim(services.run_request().pk)
        folder = folder_of(run)
        if takes is stale:
            stale(run)
        else:
            execution.run_give_back(run, "as if the store had been away")
        services.run_cancel(run)
        assert not folder.exists()


def test_giving_up_removes_the_folder(base) -> None:
    run = services.run_request()
    folder = folder_of(run)
    TrainingRun.objects.update(attempts=execution.MAX_ATTEMPTS)
    execution.run_execute(run.pk)
    run.refresh_from_db()
    assert run.status == "quarantined"
    assert not folder.exists()


def test_quarantine_removes_the_folder(base, approved, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(run, *_) -> None:
        folder_of(run)
        raise OSError("no space left on device")

    monkeypatch.setattr(pipeline, "run_work", fail)
    run = services.run_request()
    folders = [execution.run_execute(run.pk) and services.run_folder(run).exists() for _ in range(3)]
    assert folders == [True, True, False]


def test_a_worker_that_lost_its_run_leaves_nothing_of_one_that_has_ended(
    base, approved, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(run, *_) -> None:
        TrainingRun.objects.update(status="cancelled", worker=None)
        folder_of(run)
        raise RunLost

    monkeypatch.setattr(pipeline, "run_work", lose)
    run = services.run_request()
    execution.run_execute(run.pk)
    assert not services.run_folder(run).exists()


def test_the_sweep_drops_folders_of_ended_and_unknown_runs_and_no_others(base, decided) -> None:
    ended, running = decided("passed"), execution.run_claim(services.run_request().pk)
    unknown = services.run_folder(TrainingRun(pk=4711))
    unknown.mkdir(parents=True)
    folder_of(ended)
    services.runs_sweep()
    assert not services.run_folder(ended).exists()
    assert not unknown.exists()
    assert folder_of(running).exists()
    shutil.rmtree(unknown.parent)
    services.runs_sweep()


# --- The same feedback again ---


@pytest.mark.parametrize("trigger", ["schedule", "person"])
def test_the_same_feedback_and_seed_end_at_once_and_in_no_failure(
    base, approved, judged, trigger: str
) -> None:
    first = execution.run_execute(services.run_request().pk)
    again = execution.run_execute(TrainingRun.objects.create(trigger=trigger).pk)
    third = execution.run_execute(TrainingRun.objects.create(trigger=trigger).pk)
    assert len(judged) == 1
    assert (again.status, again.verdict, again.candidate) == ("unchanged", "", None)
    assert str(first) in third.error
    assert "passed" in third.error
    assert "The next run learns as soon as a correction more is approved" in third.error
    execution.run_execute(services.run_request(seed=1).pk)
    assert len(judged) == 2


@pytest.mark.parametrize("seed", [-1, 2**31])
def test_a_seed_out_of_range_is_said_to_be_that(base, seed: int) -> None:
    with pytest.raises(RunRefused, match="seed"):
        services.run_request(seed=seed)


def test_the_same_bytes_are_the_same_version_whatever_was_published_between(
    base, approved, monkeypatch
) -> None:
    one, other, again = [execution.run_execute(_run_of_seed(seed).pk) for seed in (0, 1, 0)]
    assert again.candidate == one.candidate != other.candidate


def _run_of_seed(seed: int) -> TrainingRun:
    TrainingRun.objects.update(data_sha256="")  # so that the feedback counts as new
    return services.run_request(seed=seed)
