"""Which versions of the weights exist, which one serves, and what served when. The files are in `storage`."""

from typing import Any, NoReturn

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.utils import timezone

from models_registry.exceptions import AppendOnly, VersionCorrupt
from models_registry.manifest import Manifest

_SHARE = [MinValueValidator(0.0), MaxValueValidator(1.0)]


class ModelVersion(models.Model):
    """One published, immutable set of weights with everything needed to serve it."""

    id = models.SlugField(primary_key=True, max_length=100)
    model_name = models.CharField(max_length=100)
    manifest = models.JSONField(help_text="A copy of manifest.json, the truth about the files.")
    pinned = models.BooleanField(default=False, help_text="Retention never removes a pinned version.")
    retired_at = models.DateTimeField(
        null=True, blank=True, help_text="When retention removed its files; such a version cannot serve."
    )
    files_removed_at = models.DateTimeField(
        null=True,
        blank=True,
        editable=False,
        help_text="When nothing was left for retention to remove; it then leaves a retired version alone.",
    )
    # Of what it was taught: what is deleted, or replaced by its author, is still in its weights.
    deleted_rows = models.PositiveIntegerField(
        default=0, db_default=0, editable=False, help_text="How many rows that it learned from are deleted."
    )
    rows_deleted_at = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="When the last of them was."
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return self.id

    @property
    def facts(self) -> Manifest:
        """The manifest, parsed. Raises `VersionCorrupt`, also for that of another version."""
        manifest = Manifest.from_dict(self.manifest)
        if manifest.version != self.pk:
            raise VersionCorrupt(f"The manifest of {self.pk} is that of {manifest.version}.")
        return manifest

    @property
    def readable_facts(self) -> Manifest | None:
        """The manifest, or None where it cannot be read; `error` says why."""
        try:
            return self.facts
        except VersionCorrupt:
            return None

    @property
    def error(self) -> str | None:
        """What is wrong with the manifest."""
        try:
            self.facts  # noqa: B018  read to see whether it can be
        except VersionCorrupt as error:
            return str(error)
        return None

    @property
    def marks(self) -> list[str]:
        """What is particular about it now, in a few words each."""
        marks = [alias.name for alias in self.aliases.all()]
        marks += ["pinned"] if self.pinned else []
        marks += ["retired"] if self.retired_at else []
        if count := self.deleted_rows:
            marks.append(f"learned from {count} deleted row{'' if count == 1 else 's'}")
        return marks + ([f"unreadable: {self.error}"] if self.error else [])


class Alias(models.Model):
    """A name that points at a version: the `champion` serves, a `challenger` is tried beside it."""

    class Name(models.TextChoices):
        CHAMPION = "champion", "Champion"
        CHALLENGER = "challenger", "Challenger"

    name = models.CharField(primary_key=True, max_length=20, choices=Name)
    version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="aliases")
    since = models.DateTimeField(
        default=timezone.now,
        db_column="updated_at",  # which the release before reads and writes
        help_text="When it was pointed at this version.",
    )

    class Meta:
        verbose_name_plural = "aliases"

    def __str__(self) -> str:
        return f"{self.name} → {self.version_id}"


class Rollout(models.Model):
    """How a challenger is tried, and what it may not do. There is one row; see `promotions.rollout_get`."""

    canary_share = models.FloatField(
        default=0.0,
        validators=_SHARE,
        help_text="Share of photos that a challenger answers, 0 to 1. The same photo always goes the same way.",
    )
    shadow_share = models.FloatField(
        default=0.1,
        validators=_SHARE,
        help_text="Share of the champion's photos that a challenger captions too, in idle moments, unseen.",
    )
    max_error_rate = models.FloatField(
        default=0.02, validators=_SHARE, help_text="A challenger that surely fails more often is taken back."
    )
    max_latency_ratio = models.FloatField(
        default=2.0,
        validators=[MinValueValidator(1.0)],
        help_text="A challenger that takes more than this many times as long as the champion is taken back. "
        "Batches of like size are compared.",
    )
    max_rating_drop = models.FloatField(
        default=0.5,
        validators=[MinValueValidator(0.0)],
        help_text="A challenger surely rated this much worse (of 1 to 10) is taken back.",
    )
    min_captions = models.PositiveIntegerField(
        default=10,
        validators=[MinValueValidator(2)],
        help_text="Before its speed is judged; each batch counts once.",
    )
    min_ratings = models.PositiveIntegerField(
        default=20, validators=[MinValueValidator(2)], help_text="Of each version, before they are compared."
    )

    class Meta:
        verbose_name = verbose_name_plural = "rollout of a challenger"
        constraints = [models.CheckConstraint(name="rollout_is_one_row", condition=models.Q(pk=1))]

    def __str__(self) -> str:
        return f"{self.canary_share:.0%} of photos answered, {self.shadow_share:.0%} captioned unseen"


class ServingProcess(models.Model):
    """What a process that serves has last said about itself; see `processes`."""

    name = models.CharField(primary_key=True, max_length=200, help_text="Host and process id.")
    state = models.CharField(max_length=20)
    champion = models.CharField(max_length=100, blank=True)
    previous = models.CharField(max_length=100, blank=True, help_text="Warm: a rollback to it is immediate.")
    challenger = models.CharField(max_length=100, blank=True)
    alerts = models.JSONField(default=list, help_text="What does not work as it should.")
    memory_mb = models.PositiveIntegerField(null=True, blank=True, help_text="Resident memory.")
    started_at = models.DateTimeField()
    seen_at = models.DateTimeField()

    class Meta:
        ordering = ["name"]
        verbose_name_plural = "serving processes"

    def __str__(self) -> str:
        return self.name


class Promotion(models.Model):
    """Log of what an alias pointed at, since when, by whom and why: rows are added, never changed nor deleted."""

    class Action(models.TextChoices):
        PROMOTE = "promote", "Promoted"
        ROLLBACK = "rollback", "Rolled back to"
        CLEAR = "clear", "Taken back"  # the row names what the alias pointed at until then

    class Cause(models.TextChoices):
        PERSON = "person", "A person"
        RUN = "run", "A training run whose candidate passed the gate"
        VOTES = "votes", "Blind votes that preferred a run's candidate"
        BREACH = "breach", "A challenger that breached a limit of its rollout"
        RELEASE = "release", "The starter that comes with a release"

    action = models.CharField(max_length=20, choices=Action, default=Action.PROMOTE)
    alias = models.CharField(max_length=20, choices=Alias.Name)
    version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="promotions")
    promoted_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    # The database has a default too, for the release before.
    cause = models.CharField(max_length=20, choices=Cause, default=Cause.PERSON, db_default=Cause.PERSON)
    training_run = models.PositiveBigIntegerField(
        null=True,
        blank=True,
        help_text="The number of the run whose candidate it was, where a run is the cause.",
    )
    reason = models.TextField()
    report = models.JSONField(
        null=True, blank=True, help_text="The gate's report, where one decided, or what a breach was seen by."
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-created_at", "-id"]

    def __str__(self) -> str:
        return f"{self.get_action_display()}: {self.alias} → {self.version_id}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise AppendOnly("Promotions are a log: they are never changed.")
        super().save(*args, **kwargs)

    def delete(self, *_: Any, **__: Any) -> NoReturn:
        raise AppendOnly("Promotions are a log: they are never deleted.")
