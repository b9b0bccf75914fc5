"""Which versions of the weights exist, which one serves, and what served when. The files are in `storage`."""

from django.conf import settings
from django.db import models


class ModelVersion(models.Model):
    """One published, immutable set of weights with everything needed to serve it."""

    id = models.SlugField(primary_key=True, max_length=100)
    model_name = models.CharField(max_length=100)
    manifest = models.JSONField(help_text="A copy of manifest.json, the truth about the files.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return self.id


class Alias(models.Model):
    """A name that points at a version; `champion` is the one that serves."""

    class Name(models.TextChoices):
        CHAMPION = "champion", "Champion"

    name = models.CharField(primary_key=True, max_length=20, choices=Name)
    version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="aliases")
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        verbose_name_plural = "aliases"

    def __str__(self) -> str:
        return f"{self.name} → {self.version_id}"


class Promotion(models.Model):
    """Append-only log of what an alias pointed at, since when, by whom and why."""

    alias = models.CharField(max_length=20, choices=Alias.Name)
    version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="promotions")
    promoted_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    reason = models.TextField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-created_at", "-id"]

    def __str__(self) -> str:
        return f"{self.alias} → {self.version_id}"
