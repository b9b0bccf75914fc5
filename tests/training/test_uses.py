"""What became of each row, and what a deletion means: marked versions, a run without it, no sentence left behind."""

from __future__ import annotations

import json

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
from django.utils import timezone

from captioner.captions.captions import caption_delete
from captioner.captions.feedback import feedback_ask_again, feedback_review, feedback_submit
from captioner.captions.states import feedback_states
from captioner.models import Feedback, FeedbackUse
from models_registry import promotions, storage, versions
from models_registry.exceptions import VersionCorrupt
from models_registry.manifest import DataSnapshot, Lineage
from models_registry.models import ModelVersion
from tests.models_registry.versions import versions_publish
from training import execution, services
from training.learning.blending import Blend, groups_inner
from training.learning.snapshot import snapshot_take
from training.models import TrainingRun
from training.uses import SNAPSHOT_FILE


def execute(run: TrainingRun) -> TrainingRun:
    execution.run_execute(run.pk)
    run.refresh_from_db()
    return run


def states(feedback: Feedback) -> list[str]:
    return [state.state for state in feedback_states(Feedback.objects.get(pk=feedback.pk))]


@pytest.fixture
def run(base, approved) -> TrainingRun:
    return execute(services.run_request())


def taught(run: TrainingRun) -> list[Feedback]:
    return [use.feedback for use in FeedbackUse.objects.filter(version=run.candidate, role="taught")]


def test_every_correction_says_what_became_of_it(run: TrainingRun, approved: list[Feedback]) -> None:
    became = [feedback_states(Feedback.objects.get(pk=each.pk)) for each in approved]
    assert all(memory.told.startswith("In memory since ") and memory.since for memory, _ in became)
    chose = "Chose how much version 2 keeps of what it learned, and did not teach it"
    assert {use.told for _, use in became} == {
        chose,
        "Learned in version 2",
        "Kept aside: it tests version 2 and never teaches one",
    }
    rows = [row for row in snapshot_take().of("train") if row.ideal]
    aside = {row.feedback for row in rows if row.group in groups_inner(row.group for row in rows)}
    assert aside == {each.pk for each, (_, use) in zip(approved, became, strict=True) if use.told == chose}


def test_who_taught_nothing_yet_is_told_so_and_what_it_did_before_stays_true(
    run: TrainingRun, approved: list[Feedback], monkeypatch
) -> None:
    """Of a run that ends with "nothing learned yet" no version tells what it made of its rows."""

    def told(state: str) -> int:
        return sum(state in states(each) for each in approved)

    before = told("taught"), told("chose"), told("tests")
    with monkeypatch.context() as patch:
        gains = {0.0: (0.0, 0.0), 1.0: (-3.0, 1.0)}
        patch.setattr("training.learning.pipeline.blend_find", lambda *_: Blend(0.0, gains))
        again = execute(services.run_request(seed=1))
    assert again.status == TrainingRun.Status.UNLEARNED
    assert told("unlearned") == before[0] + before[1]
    assert (told("taught"), told("chose"), told("tests")) == before
    FeedbackUse.objects.filter(version=run.candidate).delete()
    assert (told("unlearned"), told("taught"), told("tests")) == (before[0] + before[1], 0, before[2])
    execute(services.run_request(seed=2))
    assert told("unlearned") == 0, "the next run has another answer"
    assert told("taught") > 0


def test_the_sentence_of_a_deleted_caption_is_in_no_file_no_report_and_no_log(
    run: TrainingRun, approved: list[Feedback], reviewer: User, client: Client, tmp_path
) -> None:
    gone, sentence = taught(run)[0], "a purple hippopotamus on roller skates"
    Feedback.objects.filter(pk=gone.pk).update(ideal_caption=sentence)
    client.force_login(reviewer)
    client.post(f"/admin/captioner/feedback/{gone.pk}/review", {"status": "rejected", "seen": ""})
    client.post(f"/admin/captioner/caption/{gone.caption_id}/delete/", {"post": "yes"})
    assert not Feedback.objects.filter(pk=gone.pk).exists()
    for entry in LogEntry.objects.all():
        assert sentence not in entry.object_repr + entry.change_message
    run.refresh_from_db()
    said = {each.ideal_caption for each in approved}
    assert not [text for text in said if text in json.dumps(run.report)]
    texts = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not [text for text in said if any(text.encode() in content for content in texts)]


def test_a_deletion_marks_what_learned_from_it_and_starts_the_next_run(run: TrainingRun, settings) -> None:
    settings.TRAINING_MIN_NEW_FEEDBACK = 50
    assert services.run_needless() != ""
    caption_delete(taught(run)[0].caption)
    version = ModelVersion.objects.get(pk=run.candidate_id)
    assert version.deleted_rows == 1
    assert "learned from 1 deleted row" in version.marks
    assert services.run_needless() == "", "nothing else is new"
    again = execute(services.run_request_scheduled())
    assert (again.status, again.candidate.deleted_rows) == (TrainingRun.Status.FINISHED, 0)
    assert again.candidate != run.candidate
    assert services.run_needless() != "", "once is enough"


def test_what_its_author_replaces_is_in_the_weights_as_well(run: TrainingRun) -> None:
    changed = taught(run)[0]
    feedback_submit(changed.caption, rating=3, ideal_caption=changed.ideal_caption)
    assert ModelVersion.objects.get(pk=run.candidate_id).deleted_rows == 0, "it says the same"
    feedback_submit(changed.caption, ideal_caption="on second thought a cat")
    assert ModelVersion.objects.get(pk=run.candidate_id).deleted_rows == 1
    assert states(changed) == ["waiting"]


def test_deleting_a_person_marks_every_row_and_held_out_ones_mark_nothing(run: TrainingRun, user) -> None:
    Feedback.objects.filter(uses__role="tests").delete()
    assert ModelVersion.objects.get(pk=run.candidate_id).deleted_rows == 0
    rows = taught(run)
    for row in rows[:2]:
        row.caption.visitor, row.caption.user = None, user
        row.caption.save()
    user.delete()
    assert ModelVersion.objects.get(pk=run.candidate_id).deleted_rows == 2


def test_data_as_before_are_learned_again_where_the_champion_knows_more(run: TrainingRun, reviewer) -> None:
    """Taken back to what an earlier run learned, the schedule may not say that nothing is new."""
    promotions.version_promote(run.candidate, reason="test")
    ModelVersion.objects.filter(pk=run.candidate_id).update(deleted_rows=1, rows_deleted_at=timezone.now())
    again = execute(services.run_request_scheduled())
    assert again.status != TrainingRun.Status.UNCHANGED


def test_retention_takes_what_is_marked_first(base, tmp_path) -> None:
    published = versions_publish(tmp_path, 4)
    ModelVersion.objects.filter(pk=published[-1].pk).update(deleted_rows=2)
    assert published[-1] in versions.versions_retain(keep=3)
    assert published[1] not in versions.versions_retain(keep=3)


class Killed(BaseException):
    """As a process that is killed: nothing catches it."""


def kill(*_: object) -> None:
    raise Killed


@pytest.mark.parametrize("killed", ["never", "before the manifest", "before the row"])
def test_sentences_of_earlier_releases_are_taken_out_of_their_versions(
    base, approved: list[Feedback], tiny_checkpoint, tmp_path, killed: str
) -> None:
    """Whoever was killed while at it gives the command again, and has all of it."""
    monkeypatch = pytest.MonkeyPatch()
    folder = tmp_path / "old"
    (folder / "data").mkdir(parents=True)
    (folder / "weights.bin").write_bytes(b"weights")
    rows = [
        {"feedback": each.pk, "ideal": each.ideal_caption, "logged": "x", "split": "train"}
        for each in approved
    ]
    rows.append({"feedback": 999, "ideal": "said by somebody who left", "logged": "x", "split": "train"})
    (folder / SNAPSHOT_FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))
    old = versions.version_publish(
        folder,
        model_name="old",
        origin="test",
        licence="none",
        lineage=Lineage(data=DataSnapshot(SNAPSHOT_FILE, "1" * 64)),
    )
    version_mend, version_fetch = storage.version_mend, versions.version_fetch
    if killed == "before the manifest":
        monkeypatch.setattr(storage, "_manifest_read", kill)
    elif killed == "before the row":
        monkeypatch.setattr(storage, "version_mend", lambda *given: kill(version_mend(*given)))
    if killed != "never":
        with pytest.raises(Killed):
            call_command("train", "forget-sentences")
        monkeypatch.undo()
        with pytest.raises(VersionCorrupt):
            version_fetch(ModelVersion.objects.get(pk=old.pk))
    for _ in range(2):  # done again, it changes nothing
        call_command("train", "forget-sentences")
        old.refresh_from_db()
        stored = versions.version_fetch(old)
        named = [json.loads(line) for line in (stored / SNAPSHOT_FILE).read_text().splitlines()]
        assert [set(row) for row in named] == [{"feedback", "sha256", "split"}] * len(rows)
        assert (stored / "weights.bin").read_bytes() == b"weights"
        assert old.deleted_rows == 1
    assert states(approved[0]) == ["memory", "taught"]


def test_a_later_version_is_asked_what_it_says(run: TrainingRun, fake_engine, reviewer: User) -> None:
    row = taught(run)[0]
    feedback_ask_again(row)
    row.refresh_from_db()
    assert (row.now_says_version, row.now_says) == ("fake-1", row.caption.text)
    feedback_review(Feedback.objects.filter(pk=row.pk), Feedback.Status.REJECTED, reviewer=reviewer)
    assert states(row) == ["left_out"]
