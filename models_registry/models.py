"""Which versions of the weights exist, which one serves, and what served when. The files are in `storage`."""

from typing import Any, ClassVar, NoReturn, Self, TypeVar

from django.conf import settings
from django.db import models

from models_registry.exceptions import AppendOnly
from models_registry.manifest import Manifest

M = TypeVar("M", bound=models.Model)


class ModelVersion(models.Model):
    """One published, immutable set of weights with everything needed to serve it."""

    id = models.SlugField(primary_key=True, max_length=100)
    model_name = models.CharField(max_length=100)
    manifest = models.JSONField(help_text="A copy of manifest.json, the truth about the files.")
    pinned = models.BooleanField(default=False, help_text="Retention never removes a pinned version.")
    retired_at = models.DateTimeField(
        null=True, blank=True, help_text="When retention removed its files; such a version cannot serve."
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return self.id

    @property
    def facts(self) -> Manifest:
        """The manifest, parsed. Raises `VersionCorrupt`."""
        return Manifest.from_dict(self.manifest)


class Alias(models.Model):
    """A name that points at a version: the `champion` serves, a `challenger` is tried beside it."""

    class Name(models.TextChoices):
        CHAMPION = "champion", "Champion"
        CHALLENGER = "challenger", "Challenger"

    name = models.CharField(primary_key=True, max_length=20, choices=Name)
    version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="aliases")
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        verbose_name_plural = "aliases"

    def __str__(self) -> str:
        return f"{self.name} → {self.version_id}"


class AppendOnlyQuerySet(models.QuerySet[M]):
    """Rows that are written once: neither changed nor deleted, one by one or in bulk."""

    def update(self, **_: Any) -> NoReturn:
        raise AppendOnly(f"{self.model._meta.verbose_name_plural} are a log: they are never changed.")

    def bulk_update(self, *_: Any, **__: Any) -> NoReturn:
        self.update()

    def delete(self) -> NoReturn:
        raise AppendOnly(f"{self.model._meta.verbose_name_plural} are a log: they are never deleted.")


class Promotion(models.Model):
    """Append-only log of what an alias pointed at, since when, by whom and why."""

    class Action(models.TextChoices):
        PROMOTE = "promote", "Promoted"
        ROLLBACK = "rollback", "Rolled back to"
        CLEAR = "clear", "Taken back"  # the row names what the alias pointed at until then

    action = models.CharField(max_length=20, choices=Action, default=Action.PROMOTE)
    alias = models.CharField(max_length=20, choices=Alias.Name)
    version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="promotions")
    promoted_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    reason = models.TextField()
    report = models.JSONField(
        null=True, blank=True, help_text="The gate's report, where one decided, or what a breach was seen by."
    )
    created_at = models.DateTimeField(auto_now_add=True)

    objects: ClassVar[models.Manager[Self]] = models.Manager.from_queryset(AppendOnlyQuerySet)()

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
