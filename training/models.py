"""What was learned when, from what, with which outcome; and the photos that are held out for ever."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from captioner.models import IDEAL_CAPTION_MAX_LENGTH, Photo
from models_registry.models import ModelVersion

STALE_AFTER = timedelta(minutes=10)  # without a sign of life of whoever holds a run


class HeldOutPhoto(models.Model):
    """A photo that judges and therefore never teaches, whatever later becomes of the split."""

    photo = models.OneToOneField(Photo, on_delete=models.CASCADE, primary_key=True, related_name="+")
    since = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"{self.photo} held out"


class BlindCaption(models.Model):
    """What a reviewer wrote of a held-out photo without seeing what any version, or anybody, had said of it."""

    photo = models.ForeignKey(Photo, on_delete=models.CASCADE, related_name="blind_captions")
    text = models.CharField(max_length=IDEAL_CAPTION_MAX_LENGTH)
    written_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    written_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["pk"]
        constraints = [models.UniqueConstraint(fields=["photo", "written_by"], name="blind_caption_once")]

    def __str__(self) -> str:
        return f"blind caption {self.pk}"


class TrainingRun(models.Model):
    """One attempt to learn from all approved feedback, from the request to the verdict."""

    class Status(models.TextChoices):
        QUEUED = "queued", "Queued"
        RUNNING = "running", "Running"
        FINISHED = "finished", "Finished"
        CANCELLED = "cancelled", "Cancelled"
        FAILED = "failed", "Failed"  # for a reason that trying again would not change
        UNCHANGED = "unchanged", "Nothing new"  # exactly this was learned before
        UNLEARNED = (
            "unlearned",
            "Nothing learned yet",
        )  # no weight of what it learned was better than the base
        QUARANTINED = "quarantined", "Quarantined"  # failed too often; nobody tries again by itself

    class Trigger(models.TextChoices):
        SCHEDULE = "schedule", "Schedule"
        PERSON = "person", "Train now"

    class Verdict(models.TextChoices):
        PASSED = "passed", "Passed"
        REJECTED = "rejected", "Rejected"
        INSUFFICIENT = "insufficient evidence", "Insufficient evidence"

    LEARNED: ClassVar[tuple[str, ...]] = (
        Status.FINISHED,
        Status.UNLEARNED,
    )  # to the end, whatever came of it

    class VotesVerdict(models.TextChoices):
        PREFERRED = "preferred", "The candidate is preferred"
        NOT_PREFERRED = "not preferred", "The candidate is not preferred"
        UNDECIDED = "undecided", "Stopped without a verdict"

    UNFINISHED: ClassVar[tuple[str, ...]] = (Status.QUEUED, Status.RUNNING)

    status = models.CharField(max_length=12, choices=Status, default=Status.QUEUED, db_index=True)
    trigger = models.CharField(max_length=8, choices=Trigger)
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    seed = models.PositiveIntegerField(default=0)
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    attempts = models.PositiveSmallIntegerField(default=0)
    worker = models.UUIDField(
        null=True, blank=True, help_text="Whoever holds this run; changes when it is taken over."
    )
    heartbeat_at = models.DateTimeField(null=True, blank=True)
    cancel_requested = models.BooleanField(default=False)
    stage = models.CharField(max_length=40, blank=True)
    done = models.PositiveIntegerField(default=0)
    total = models.PositiveIntegerField(default=0)
    curve = models.JSONField(default=list, help_text='[{"step": int, "loss": float, ...}, ...], thinned.')
    error = models.TextField(blank=True, help_text="What ended the last attempt.")

    base = models.ForeignKey(ModelVersion, null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    champion = models.ForeignKey(
        ModelVersion, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    candidate = models.ForeignKey(
        ModelVersion, null=True, blank=True, on_delete=models.PROTECT, related_name="training_runs"
    )
    data_sha256 = models.CharField(max_length=64, blank=True, db_index=True)
    counts = models.JSONField(default=dict, help_text="Rows and photos of the data snapshot.")

    verdict = models.CharField(max_length=24, choices=Verdict, blank=True)
    report = models.JSONField(default=dict, help_text="What the gate measured and decided.")
    look = models.PositiveIntegerField(
        null=True,
        blank=True,
        help_text="The how-manieth comparison with this champion on held-out feedback; empty where there was none.",
    )
    # The database has a default too, for the release before.
    is_harmful = models.BooleanField(
        default=False,
        db_default=False,
        help_text="Whether the gate proved the candidate to be worse somewhere.",
    )
    votes_look = models.PositiveIntegerField(
        null=True,
        blank=True,
        help_text="The how-manieth candidate that people voted on beside this champion; empty until somebody does.",
    )
    votes_verdict = models.CharField(
        max_length=16,
        choices=VotesVerdict,
        blank=True,
        default="",
        db_default="",  # for the release before
        help_text="What people's blind votes said, once they had decided.",
    )
    promoted_to = models.CharField(max_length=20, blank=True)
    overruled_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    overruled_at = models.DateTimeField(null=True, blank=True)
    overruled_to = models.CharField(max_length=24, choices=Verdict, blank=True)
    overruled_reason = models.TextField(blank=True)

    class Meta:
        ordering = ["-pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["status"], condition=Q(status="running"), name="training_one_running"
            ),
            models.UniqueConstraint(
                fields=["status"], condition=Q(status="queued"), name="training_one_queued"
            ),
        ]
        permissions = [("teach_unbounded", "Can teach without the limit per author")]

    def __str__(self) -> str:
        return f"training run {self.pk}"

    @property
    def is_stale(self) -> bool:
        """Whether whoever holds this run has not been heard of for too long."""
        limit = timezone.now() - STALE_AFTER
        return self.status == self.Status.RUNNING and (self.heartbeat_at or self.created_at) < limit

    @property
    def final_verdict(self) -> str:
        """A reviewer's verdict, else that of blind votes where the gate had too little evidence, else the gate's."""
        if self.overruled_to:
            return self.overruled_to
        voted = (
            self.votes_verdict == self.VotesVerdict.PREFERRED and self.verdict == self.Verdict.INSUFFICIENT
        )
        return self.Verdict.PASSED if voted else self.verdict

    @property
    def facts(self) -> dict[str, Any]:
        """The run in figures, for a command to print."""
        return {
            "run": self.pk,
            "status": self.status,
            "stage": f"{self.stage} {self.done}/{self.total}",
            "attempts": self.attempts,
            "verdict": self.final_verdict,
            "candidate": self.candidate_id,
            "promoted_to": self.promoted_to,
            "error": self.error,
        }


class Comparison(models.Model):
    """What candidate and champion of a run say of a photo that is held out: shown to reviewers, and voted on blind.

    Not in the run's report, which nothing is ever deleted from: it goes with its photo.
    """

    run = models.ForeignKey(TrainingRun, on_delete=models.CASCADE, related_name="comparisons")
    photo = models.ForeignKey(Photo, on_delete=models.CASCADE, related_name="+")
    candidate = models.TextField()
    champion = models.TextField()

    class Meta:
        ordering = ["pk"]
        constraints = [models.UniqueConstraint(fields=["run", "photo"], name="comparison_once")]

    def __str__(self) -> str:
        return f"comparison {self.pk}"
