"""A training run from the request to the verdict, and everything that can come between."""

from __future__ import annotations

import json
import uuid
from datetime import timedelta

import numpy as np
import pytest
from django.core.files.base import ContentFile
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from captioner.captions.api_keys import api_key_create
from captioner.captions.captions import caption_delete
from captioner.captions.feedback import feedback_review, feedback_submit
from captioner.captions.photos import photos_hash
from captioner.inference.calibration import Calibration, calibration_read
from captioner.models import Feedback, Owner, Photo, PhotoVector
from models_registry import promotions, versions
from models_registry.card import card_text
from models_registry.models import ModelVersion, Promotion
from tests.photos import draw_scene
from tests.training.conftest import feedback_give
from training import decisions, execution, services
from training.admin import authors_capped
from training.exceptions import RunCancelled, RunLost, RunRefused
from training.judging import gate
from training.judging.calibration import Bin
from training.judging.gate import Decision, Verdict
from training.judging.gate_report import counts_told
from training.learning import curation, pipeline
from training.learning.blending import Blend
from training.learning.config import LearnConfig
from training.learning.finetune import Finetuning
from training.learning.model import FeatureCaptioner
from training.learning.photos import RunPhotos, holdout_references, snapshot_budget
from training.learning.snapshot import snapshot_take
from training.models import STALE_AFTER, BlindCaption, HeldOutPhoto, TrainingRun
from training.progress import untold
from training.tasks import features_forget_task

Status = TrainingRun.Status


@pytest.fixture(autouse=True)
def _few_is_enough(settings) -> None:
    settings.TRAINING_MIN_NEW_FEEDBACK = 5


def execute(run: TrainingRun) -> TrainingRun:
    execution.run_execute(run.pk)
    run.refresh_from_db()
    return run


@pytest.fixture
def gate_says(monkeypatch: pytest.MonkeyPatch):
    """Replaces the gate, so that what follows each verdict can be seen."""

    def say(verdict: Verdict) -> None:
        monkeypatch.setattr(pipeline, "decide", lambda **_: Decision(verdict, "because", (), None, None))

    return say


# --- From feedback to a version ---


def test_a_run_learns_publishes_and_tells_what_it_saw(base, approved) -> None:
    run = execute(services.run_request())
    assert (run.status, run.error, run.attempts) == (Status.FINISHED, "", 1)
    assert run.verdict == Verdict.INSUFFICIENT, "a handful of photos proves nothing"
    assert run.curve[-1]["step"] == 4
    assert run.counts["corrections_cut"] == 0
    assert run.counts["replayed_photos"] == 3, "half of the bundled set; the other half judges"
    [anchor] = [check for check in run.report["checks"] if check["question"] == "anchor"]
    assert ", 3 photos) against the champion" in anchor["measured"]
    assert run.report["learned"]["share"] == 1.0
    assert run.report["holdout"]["groups"] == run.counts["holdout_photos"]
    assert run.report["figures"]["holdout"]["candidate"]["cider_d"] >= 0
    assert run.report["checks"]
    assert promotions.champion_get() == base, "nothing was promoted"
    lineage = run.candidate.facts.lineage
    assert (lineage.base, lineage.parent, lineage.seed) == (base.pk, base.pk, 0)
    assert lineage.data.sha256 == run.data_sha256
    assert not services.run_folder(run).exists(), "features of people's photos do not outlive the run"


def test_captions_that_are_too_long_to_teach_an_end_are_counted(base, approved, reviewer) -> None:
    said = {feedback.pk for feedback in approved}
    Feedback.objects.filter(pk__in=said).update(ideal_caption="a dog " * 40)
    Feedback.objects.update(rating=None)
    run = execute(services.run_request())
    assert 0 < run.counts["corrections_cut"] == run.counts["train_corrections"]
    assert run.candidate.facts.lineage.data.counts == run.counts


def test_lineage_leads_from_a_version_to_the_feedback_and_names_nobody(base, approved, user) -> None:
    run = execute(services.run_request())
    stored = versions.version_fetch(run.candidate) / run.candidate.facts.lineage.data.uri
    rows = [json.loads(line) for line in stored.read_text().splitlines()]
    assert {row["feedback"] for row in rows} == {feedback.pk for feedback in approved}
    assert {row["split"] for row in rows} == {"train", "holdout"}
    said = {text for each in approved for text in (str(each.caption.visitor), each.ideal_caption)}
    assert not [text for text in said if text in stored.read_text()]
    assert all(row.keys() == {"feedback", "sha256", "split"} for row in rows)


def test_only_approved_feedback_teaches_and_what_was_deleted_never_again(base, approved, reviewer) -> None:
    pending = feedback_give(50)
    rejected = feedback_give(51)
    feedback_review(Feedback.objects.filter(pk=rejected.pk), Feedback.Status.REJECTED, reviewer=reviewer)
    deleted = approved[0]
    caption_delete(deleted.caption)
    ids = {row.feedback for row in snapshot_take().rows}
    assert ids == {feedback.pk for feedback in approved[1:]}
    assert not ids & {pending.pk, rejected.pk, deleted.pk}


def test_photos_held_out_once_are_remembered(base, approved) -> None:
    held = {row.photo for row in snapshot_take().of("holdout")}
    assert held == set(HeldOutPhoto.objects.values_list("photo__sha256", flat=True))


def test_photos_stored_before_there_were_hashes_get_theirs(base, approved) -> None:
    before = dict(Photo.objects.values_list("pk", "difference_hash"))
    Photo.objects.update(difference_hash="")
    assert photos_hash() == len(before)
    after = dict(Photo.objects.values_list("pk", "difference_hash"))
    distances = [(int(before[pk], 16) ^ int(after[pk], 16)).bit_count() for pk in before]
    assert max(distances) <= 4, "what is stored was re-encoded, and still looks the same"


# --- Nothing learned yet ---


@pytest.fixture
def nothing_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    gains = {0.0: (0.0, 0.0), 0.25: (1.2, 3.0)}
    monkeypatch.setattr(pipeline, "blend_find", lambda *_: Blend(0.0, gains))


def test_where_no_share_of_what_was_learned_is_better_nothing_is_published(
    base, approved, nothing_holds, client, reviewer
) -> None:
    run = execute(services.run_request_scheduled())
    assert (run.status, run.verdict, run.candidate, run.attempts) == (Status.UNLEARNED, "", None, 1)
    assert "Nothing learned yet" in run.error
    assert "at best +1.2 CIDEr-D, give or take 3.0" in run.error
    assert run.report["learned"]["gains"]["0.25"] == [1.2, 3.0]
    assert promotions.champion_get() == base
    assert ModelVersion.objects.count() == 1
    assert not services.run_folder(run).exists()
    client.force_login(reviewer)
    page = client.get(f"/admin/training/trainingrun/{run.pk}/change/").content.decode()
    assert "Nothing learned yet" in page
    assert "no average with the base is surely better" in page


def test_what_taught_nothing_is_not_tried_again_until_there_is_more(
    base, approved, nothing_holds, reviewer
) -> None:
    first = execute(services.run_request_scheduled())
    assert services.run_request_scheduled() is None, "nothing new was approved"
    again = execute(services.run_request())
    assert again.status == Status.UNCHANGED
    assert f"{first}: Nothing learned yet" in again.error
    for number in range(5):
        feedback_give(60 + number, reviewer=reviewer)
    assert services.run_request_scheduled() is not None


def test_one_photo_alone_teaches_nothing(base, fake_engine, reviewer) -> None:
    owner, said = Owner(user=reviewer), {"ideal_caption": "a dog"}
    given = (feedback_give(number, reviewer=reviewer, owner=owner, **said) for number in range(20))
    kept = next(feedback for feedback in given if not is_held_out(feedback))
    Feedback.objects.exclude(pk=kept.pk).delete()
    run = execute(services.run_request())
    assert run.status == Status.FAILED
    assert "Corrections of one photo alone" in run.error


def is_held_out(feedback: Feedback) -> bool:
    return feedback.caption.photo.sha256 in {row.photo for row in snapshot_take().of("holdout")}


# --- What is kept from one night to the next ---


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many photos are encoded, a number for each batch."""
    counts: list[int] = []
    encode = FeatureCaptioner.encode_images

    def count(self: FeatureCaptioner, images):
        counts.append(len(images))
        return encode(self, images)

    monkeypatch.setattr(FeatureCaptioner, "encode_images", count)
    return counts


def test_the_second_night_encodes_only_what_is_new(base, approved, reviewer, encoded) -> None:
    execute(services.run_request())
    assert sum(encoded) == 12 + 6
    encoded.clear()
    feedback_give(70, reviewer=reviewer)
    run = execute(services.run_request())
    assert run.status == Status.FINISHED
    assert sum(encoded) == 1


def test_what_was_seen_of_a_deleted_photo_is_forgotten(base, approved, settings) -> None:
    execute(services.run_request())
    [folder] = services.features_folder().glob("*/photos")
    gone = approved[0].caption.photo.sha256
    assert gone in {path.stem for path in folder.rglob("*.npy")}
    caption_delete(approved[0].caption)
    features_forget_task()
    kept = {path.stem for path in folder.rglob("*.npy")}
    assert gone not in kept
    assert len(kept) == 11


def test_corrections_that_no_step_would_visit_are_counted_and_cost_nothing(
    base, approved, monkeypatch, encoded
) -> None:
    monkeypatch.setattr(LearnConfig, "max_rows", 4)
    run = execute(services.run_request())
    left = run.counts["left_out_step_budget"]
    assert run.counts["train_corrections"] == 4
    assert left + run.counts["holdout_corrections"] == 8
    assert sum(encoded) == 4 + run.counts["holdout_photos"] + 6
    assert f"{left} corrections left out: the steps of one run visit no more" in counts_told(run.counts)


def test_a_run_asks_as_many_questions_for_many_rows_as_for_few(base, approved, reviewer) -> None:
    config = pipeline.LearnConfig(0)
    captioner = FeatureCaptioner.load(versions.version_fetch(base))

    def look() -> None:
        RunPhotos(captioner, snapshot_budget(snapshot_take(), config.max_rows), untold)

    look()
    with CaptureQueriesContext(connection) as few:
        look()
    for number in range(80, 104):
        feedback_give(number, reviewer=reviewer)
    look()
    with CaptureQueriesContext(connection) as many:
        look()
    assert len(many) == len(few)


def test_progress_is_told_from_the_first_second(base, approved, monkeypatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(execution.Heartbeat, "tick", lambda _, stage, *__: seen.append(stage))
    execute(services.run_request())
    assert list(dict.fromkeys(seen)) == [
        "Collecting feedback",
        "Looking for copies",
        "Loading the base",
        "Looking at replayed photos",
        "Looking at original test photos",
        "Looking at photos",
        "Learning",
        "Calibrating",
        "Judging",
        "Publishing",
    ]


def test_the_confidence_is_refitted_and_its_reliability_is_in_the_card(base, approved, monkeypatch) -> None:
    bins = [Bin(12, 0.25, 1 / 3), Bin(8, 0.75, 0.875)]
    monkeypatch.setattr(pipeline, "calibration_refit", lambda *_: (Calibration(2.0, 1.0, "so"), bins))
    run = execute(services.run_request())
    folder = versions.version_fetch(run.candidate)
    assert calibration_read(folder) == Calibration(2.0, 1.0, "so")
    assert run.report["reliability"][0] == {"count": 12, "confidence": 0.25, "accepted": 1 / 3}
    card = card_text(run.candidate.facts)
    assert "| 12 captions, 25% sure: accepted % | 33.3 |" in card
    assert "| 8 captions, 75% sure: accepted % | 87.5 |" in card


# --- When to run ---


def test_the_schedule_waits_for_enough_new_feedback(base, fake_engine, reviewer) -> None:
    for number in range(4):
        feedback_give(number, reviewer=reviewer)
    assert services.run_request_scheduled() is None
    feedback_give(4, reviewer=reviewer)
    assert services.run_request_scheduled() is not None


def test_unchanged_feedback_is_not_learned_from_again_even_after_a_rejection(
    base, approved, gate_says
) -> None:
    gate_says(Verdict.REJECTED)
    first = execute(services.run_request())
    assert services.run_request_scheduled() is None, "nothing new was approved"
    # Reviewed again, with the same outcome: new by its date, but the same feedback.
    Feedback.objects.update(reviewed_at=timezone.now())
    again = execute(services.run_request_scheduled())
    assert again.status == Status.UNCHANGED
    assert str(first) in again.error
    assert "rejected" in again.error
    assert again.curve == [], "it was a cheap no-op"


def test_a_person_may_train_on_the_same_feedback_with_another_seed(base, approved) -> None:
    one = execute(services.run_request())
    two = execute(services.run_request(seed=1))
    assert one.candidate != two.candidate


def test_every_run_starts_from_the_base_never_from_what_was_learned(base, approved, gate_says) -> None:
    gate_says(Verdict.PASSED)
    first = execute(services.run_request())
    assert promotions.champion_get() == first.candidate
    second = execute(services.run_request(seed=1))
    assert second.base == base
    assert second.champion == first.candidate
    assert second.candidate.facts.lineage.parent == first.candidate.pk


def test_nothing_to_learn_from_is_said_and_not_tried_again(base) -> None:
    run = execute(services.run_request())
    assert run.status == Status.FAILED
    assert "No approved correction" in run.error


def test_one_visitor_alone_teaches(base, fake_engine, reviewer) -> None:
    alone = Owner(visitor=uuid.uuid4())
    for number in range(6):
        feedback_give(number, reviewer=reviewer, owner=alone)
    run = execute(services.run_request())
    assert run.status == Status.FINISHED
    assert run.counts["train_corrections"] + run.counts["holdout_corrections"] == 6


def test_end_users_of_a_key_are_authors_and_the_key_does_not_vouch_for_them(
    base, fake_engine, reviewer
) -> None:
    key, _ = api_key_create(reviewer, "product")
    owners = [Owner(user=reviewer), Owner(api_key=key)]
    owners += [Owner(api_key=key, end_user=name) for name in ("u-1", "u-2")]
    for number, owner in enumerate(owners):
        feedback_give(number, reviewer=reviewer, owner=owner)
    rows = snapshot_take().rows
    assert len({row.author for row in rows}) == 4
    assert [row.trusted for row in rows] == [True, True, False, False], "staff is trusted"
    assert not any(row.anonymous for row in rows)


def test_who_is_capped_is_named_in_the_report(base, approved, reviewer, monkeypatch) -> None:
    monkeypatch.setattr(curation, "FREE_ROWS", 3)
    flood = Owner(visitor=uuid.uuid4())
    for number in range(20, 32):
        feedback_give(number, reviewer=reviewer, owner=flood)
    run = execute(services.run_request())
    [(name, rows)] = authors_capped(run)[:1]
    assert name == f"visitor {str(flood.visitor)[:8]}"
    assert 1 < rows <= run.counts["left_out_author_cap"]


def test_what_was_stored_as_a_correction_and_is_none_counts_as_a_rating(base, approved) -> None:
    Feedback.objects.filter(pk=approved[0].pk).update(ideal_caption=approved[0].caption.text.upper() + ".")
    [row] = [row for row in snapshot_take().rows if row.feedback == approved[0].pk]
    assert (row.ideal, row.rating) == ("", 10)


# --- What judges ---


def test_a_light_edit_judges_only_beside_a_blind_caption(base, approved) -> None:
    held = HeldOutPhoto.objects.values("photo") if snapshot_take() else None
    feedback = Feedback.objects.filter(caption__photo__in=held).first()
    photo = feedback.caption.photo
    assert photo.sha256 in holdout_references(snapshot_take())
    Feedback.objects.filter(pk=feedback.pk).update(ideal_caption=f"{feedback.caption.text} there")
    assert photo.sha256 not in holdout_references(snapshot_take())
    BlindCaption.objects.create(photo=photo, text="what I see")
    assert holdout_references(snapshot_take())[photo.sha256] == [
        "what I see",
        f"{feedback.caption.text} there",
    ]


def test_photos_of_one_hash_are_a_group_only_if_the_encoder_agrees(base, approved) -> None:
    photos = [feedback.caption.photo for feedback in approved[:3]]
    Photo.objects.filter(pk__in=[photo.pk for photo in photos]).update(difference_hash="0f0f0f0f0f0f0000")

    def groups() -> int:
        of_photo = {row.photo: row.group for row in snapshot_take().rows}
        return len({of_photo[photo.sha256] for photo in photos})

    assert groups() == 1
    for photo, vector in zip(photos, ([1, 0], [0.9, 0.4], [0, 1]), strict=True):
        PhotoVector.objects.create(photo=photo, encoder="e", vector=np.array(vector, "<f2").tobytes())
    assert groups() == 2


# --- Looks ---


def test_every_comparison_with_a_champion_is_a_look_whatever_the_salt(
    base, approved, monkeypatch, settings
) -> None:
    monkeypatch.setattr(gate, "MIN_PHOTOS", 1)
    first = execute(services.run_request())
    settings.SECRET_KEY = "another"
    second = execute(services.run_request(seed=1))
    assert (first.look, second.look) == (1, 2)
    assert "look 2 at the champion" in str(second.report["checks"])
    TrainingRun.objects.update(champion=None)
    assert services.run_look(second, base) == 1, "another champion, other looks"


# --- One at a time ---


def test_two_schedules_start_one_run(base, approved) -> None:
    runs = [services.run_request_scheduled() for _ in range(2)]
    assert [run is not None for run in runs] == [True, False]
    assert TrainingRun.objects.count() == 1


def test_the_database_itself_allows_one_running_and_one_queued_run(db) -> None:
    for status in (Status.RUNNING, Status.QUEUED):
        TrainingRun.objects.create(trigger="schedule", status=status)
        with pytest.raises(IntegrityError), transaction.atomic():
            TrainingRun.objects.create(trigger="schedule", status=status)


def test_a_run_in_good_hands_is_left_alone_and_a_stale_one_taken_over(base, approved, settings) -> None:
    run = services.run_request()
    holder = execution.run_claim(run.pk)
    assert execution.run_claim(run.pk) is None
    assert services.runs_sweep() == 0
    TrainingRun.objects.update(heartbeat_at=timezone.now() - STALE_AFTER - timedelta(seconds=1))
    assert services.runs_sweep() == 1
    taken = execute(run)
    assert (taken.status, taken.attempts) == (Status.FINISHED, 2)
    progress = execution.Heartbeat(holder)
    with pytest.raises(RunLost):
        progress.tick("Learning", 1, 2)


def interrupted(run: TrainingRun) -> None:
    """Do `run` until it dies after a checkpoint; whoever looks next finds it stale."""
    tick = execution.Heartbeat.tick

    def die(self, stage, done, total) -> None:
        tick(self, stage, done, total)
        if (stage, done) == ("Learning", 3):
            raise KeyboardInterrupt  # what neither records nor cleans anything up

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execution.Heartbeat, "tick", die)
        with pytest.raises(KeyboardInterrupt):
            execution.run_execute(run.pk)
    TrainingRun.objects.update(heartbeat_at=timezone.now() - timedelta(days=1))


def test_an_interrupted_run_goes_on_where_it_was_to_the_same_version(base, approved) -> None:
    whole = execute(services.run_request())
    registry_same = whole.candidate
    TrainingRun.objects.all().delete()
    run = services.run_request()
    interrupted(run)
    run = execute(run)
    assert run.status == Status.FINISHED
    assert run.candidate == registry_same, "the same bytes, so the same version"
    steps = [point["step"] for point in run.curve]
    assert steps == sorted(set(steps)), "steps that were done twice are shown once"
    assert steps[-1] == 4


def test_what_is_approved_meanwhile_waits_for_the_next_run(base, approved, reviewer) -> None:
    run = services.run_request()
    interrupted(run)
    frozen = snapshot_take()
    feedback_give(60, reviewer=reviewer)
    seen = []

    def see(self, stage, done, total) -> None:
        seen.append((stage, done))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execution.Heartbeat, "tick", see)
        run = execute(run)
    assert run.status == Status.FINISHED
    assert run.data_sha256 == frozen.sha256 == run.candidate.facts.lineage.data.sha256
    assert frozen.counts.items() <= run.counts.items()
    assert next(done for stage, done in seen if stage == "Learning") == 3, "it resumed after step 2"
    assert services.feedback_new_count() == 1, "what came between the attempts is new"


def test_what_was_deleted_rejected_or_edited_meanwhile_is_not_learned_from(base, approved, reviewer) -> None:
    run = services.run_request()
    interrupted(run)
    caption_delete(approved[0].caption)
    feedback_review(Feedback.objects.filter(pk=approved[1].pk), Feedback.Status.REJECTED, reviewer=reviewer)
    feedback_submit(approved[2].caption, ideal_caption="on second thought a cat")
    run = execute(run)
    assert run.status == Status.FINISHED
    stored = versions.version_fetch(run.candidate) / run.candidate.facts.lineage.data.uri
    taught = {json.loads(line)["feedback"] for line in stored.read_text().splitlines()}
    assert taught == {feedback.pk for feedback in approved[3:]}


def test_where_several_processes_learn_the_run_is_the_same_to_everybody(base, approved, monkeypatch) -> None:
    def gradients(*_) -> None:
        raise AssertionError("the steps are taken elsewhere")

    monkeypatch.setattr(pipeline, "process_count", lambda _: 2)
    monkeypatch.setattr(Finetuning, "gradients", gradients)
    run = execute(services.run_request())
    assert (run.status, run.error) == (Status.FINISHED, "")
    assert [point["step"] for point in run.curve] == [1, 2, 3, 4]
    assert all(point["loss"] > 0 for point in run.curve)
    assert run.candidate != base
    assert not services.run_folder(run).exists()


# --- What goes wrong ---


def test_a_run_that_keeps_failing_is_quarantined_after_three_attempts(base, approved, monkeypatch) -> None:
    def fail(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr(pipeline, "run_work", fail)
    run = services.run_request()
    seen = [execute(run).status for _ in range(5)]
    assert seen == [Status.QUEUED, Status.QUEUED, *[Status.QUARANTINED] * 3]
    assert run.attempts == 3
    assert "no space left on device" in run.error


def test_a_run_that_kills_its_process_is_quarantined_too(base, approved) -> None:
    run = services.run_request()
    for _ in range(3):
        assert execution.run_claim(run.pk)
        TrainingRun.objects.update(heartbeat_at=timezone.now() - timedelta(days=1))
    assert execution.run_claim(run.pk) is None
    run.refresh_from_db()
    assert run.status == Status.QUARANTINED
    services.run_retry(run)
    assert execute(run).status == Status.FINISHED


def test_cancelling_stops_at_the_next_step_and_leaves_nothing_behind(base, approved) -> None:
    run = execution.run_claim(services.run_request().pk)
    services.run_cancel(run)
    with pytest.raises(RunCancelled):
        execution.Heartbeat(run).tick("Learning", 1, 2)
    queued = TrainingRun.objects.get()
    assert queued.cancel_requested


def test_a_queued_run_is_cancelled_at_once(base) -> None:
    run = services.run_request()
    services.run_cancel(run)
    run.refresh_from_db()
    assert run.status == Status.CANCELLED
    assert execution.run_execute(run.pk) is None
    with pytest.raises(RunRefused, match="ended already"):
        services.run_cancel(run)


def test_what_waits_too_long_is_handed_out_again(base) -> None:
    services.run_request()
    assert services.runs_sweep() == 0
    TrainingRun.objects.update(created_at=timezone.now() - timedelta(minutes=5))
    assert services.runs_sweep() == 1


def test_settings_changed_between_attempts_start_the_learning_anew(base, approved, monkeypatch) -> None:
    run = execution.run_claim(services.run_request().pk)
    folder = services.run_folder(run)
    snapshot = snapshot_take()
    progress = execution.Heartbeat(run).tick
    pipeline.run_work(run, snapshot, base, base, progress)
    checkpoint = folder / "learning/checkpoint.safetensors"
    before = checkpoint.stat().st_mtime_ns
    config = pipeline.LearnConfig
    monkeypatch.setattr(pipeline, "LearnConfig", lambda seed: config(seed + 7))
    outcome = pipeline.run_work(run, snapshot, base, base, progress)
    assert checkpoint.stat().st_mtime_ns > before
    assert outcome.candidate.facts.lineage.seed == 7


# --- Promotion ---


@pytest.mark.parametrize("policy", ["champion", "challenger", "nothing"])
def test_a_version_that_passed_becomes_what_the_policy_says(
    base, approved, gate_says, settings, policy: str
) -> None:
    settings.TRAINING_PROMOTE_TO = policy
    gate_says(Verdict.PASSED)
    run = execute(services.run_request())
    challenger = promotions.challenger_get()
    assert run.promoted_to == ("" if policy == "nothing" else policy)
    assert promotions.champion_get() == (run.candidate if policy == "champion" else base)
    assert challenger == (run.candidate if policy == "challenger" else None)


def test_a_rejected_version_is_kept_with_its_report_and_serves_nobody(base, approved, gate_says) -> None:
    gate_says(Verdict.REJECTED)
    run = execute(services.run_request())
    assert promotions.champion_get() == base
    assert run.candidate.facts.lineage.gate["reason"] == "because"
    assert (versions.version_fetch(run.candidate) / "config.json").exists()


def test_a_verdict_against_a_champion_that_was_replaced_meanwhile_promotes_nothing(
    base, approved, gate_says, tiny_checkpoint
) -> None:
    other = versions.version_publish(
        tiny_checkpoint,
        model_name="other",
        origin="test",
        licence="none",
        patterns=("*.json", "*.safetensors"),
    )
    gate_says(Verdict.PASSED)
    decide = pipeline.decide

    def and_meanwhile(**questions):
        promotions.version_promote(other, reason="by hand")
        return decide(**questions)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "decide", and_meanwhile)
        run = execute(services.run_request())
    assert promotions.champion_get() == other
    assert (run.verdict, run.promoted_to) == (Verdict.PASSED, "")


def test_a_reviewer_overrules_with_a_reason_that_is_logged(base, approved, gate_says, reviewer) -> None:
    gate_says(Verdict.REJECTED)
    run = execute(services.run_request())
    with pytest.raises(RunRefused, match="Say why"):
        decisions.run_overrule(run, "passed", reason=" ", by=reviewer)
    decisions.run_overrule(run, "passed", reason="The captions are plainly better", by=reviewer)
    run.refresh_from_db()
    assert (run.verdict, run.final_verdict, run.overruled_by) == ("rejected", "passed", reviewer)
    assert promotions.champion_get() == run.candidate
    entry = Promotion.objects.first()
    assert entry.promoted_by == reviewer
    assert "plainly better" in entry.reason
    with pytest.raises(RunRefused, match="verdict already"):
        decisions.run_overrule(run, "passed", reason="again", by=reviewer)


def test_photos_that_are_gone_from_the_store_end_no_run(base, approved) -> None:
    """As after the restore of an older dump."""
    photo = Photo.objects.first()
    photo.file.storage.delete(photo.file.name)
    run = execute(services.run_request())
    assert (run.status, run.error) == (Status.FINISHED, "")


def photo_damage(photo: Photo, data: bytes) -> None:
    photo.file.storage.delete(photo.file.name)
    photo.file.storage.save(photo.file.name, ContentFile(data))


def test_photos_that_cannot_be_read_are_left_out_and_counted(base, approved, reviewer) -> None:
    """One that trains, one that is held out, one that has no hash yet."""
    snapshot = snapshot_take()
    hurt = [snapshot.of("train")[0], snapshot.of("holdout")[0]]
    unhashed = snapshot.of("train")[1]
    for row in hurt:
        photo = Photo.objects.get(sha256=row.photo)
        with photo.file.open() as file:
            photo_damage(photo, file.read()[:400])
    photo_damage(Photo.objects.get(sha256=unhashed.photo), b"no photo")
    Photo.objects.filter(sha256=unhashed.photo).update(difference_hash="")
    run = execute(services.run_request())
    assert (run.status, run.error) == (Status.FINISHED, "")
    assert run.counts["left_out_photo_unreadable"] == 3
    stored = versions.version_fetch(run.candidate) / run.candidate.facts.lineage.data.uri
    taught = {json.loads(line)["feedback"] for line in stored.read_text().splitlines()}
    assert not taught & {row.feedback for row in [*hurt, unhashed]}
    assert len(taught) == len(approved) - 3
    assert run.counts["train_corrections"] + run.counts["holdout_corrections"] == len(approved) - 3


# --- An operator's own photo sets ---


def test_original_and_replay_photos_come_from_the_operators_sets(base, approved, settings, tmp_path) -> None:
    for name in ("original", "replay"):
        folder = tmp_path / name
        folder.mkdir()
        lines = []
        for number in range(3):
            (folder / f"{number}.jpg").write_bytes(draw_scene(900 + number))
            lines.append(json.dumps({"file": f"{number}.jpg", "captions": ["A dog .", "a cat"]}))
        (folder / "captions.jsonl").write_text("\n".join(lines))
        setattr(settings, f"TRAINING_{name.upper()}_PHOTOS", str(folder))
    run = execute(services.run_request())
    assert run.status == Status.FINISHED, run.error
    [original] = [check for check in run.report["checks"] if check["question"] == "original"]
    assert ", 3 photos) against the champion" in original["measured"]
    assert run.counts["replayed_photos"] == 3 + 3, "besides the bundled ones"
    assert run.report["figures"]["original"].keys() == {"candidate", "champion"}


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("missing", "captions.jsonl"),
        ("empty", "holds no photos"),
        ("photo", "photo 2 cannot be read"),
        ("file", "is damaged"),
        ("tar", "is damaged"),
    ],
)
@pytest.mark.parametrize("name", ["TRAINING_ORIGINAL_PHOTOS", "TRAINING_REPLAY_PHOTOS"])
def test_a_photo_set_that_is_wrong_is_told_before_learning_and_not_tried_again(
    base, approved, settings, tmp_path, name: str, damage: str, told: str
) -> None:
    path = tmp_path / "set"
    path.mkdir()
    lines = [json.dumps({"file": f"{number}.jpg", "captions": ["a dog"]}) for number in range(2)]
    for number in range(2):
        (path / f"{number}.jpg").write_bytes(draw_scene(900 + number))
    if damage != "missing":
        (path / "captions.jsonl").write_text("" if damage == "empty" else "\n".join(lines))
    if damage == "photo":
        (path / "1.jpg").write_bytes((path / "1.jpg").read_bytes()[:300])
    if damage == "file":
        (path / "1.jpg").unlink()
    if damage == "tar":
        path = tmp_path / "set.tar"
        path.write_bytes(b"no tar " * 200)
    setattr(settings, name, str(path))
    run = execute(services.run_request())
    assert told in run.error
    assert str(path) in run.error
    assert (run.status, run.attempts, run.curve) == (Status.QUARANTINED, 1, [])
    assert services.feedback_new_count() == len(approved), "what could not be learned from is still new"
