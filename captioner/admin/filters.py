"""Filters of the admin's lists. Their choices are known: none asks a large table what values it holds."""

from collections.abc import Iterator
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest

from captioner.models import Feedback
from models_registry.models import ModelVersion


class StatusFilter(admin.SimpleListFilter):
    """The review queue by default, everything else on request."""

    title = "status"
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        decided = [status for status in Feedback.Status if status != Feedback.Status.PENDING]
        return [*((status.value, status.label) for status in decided), ("all", "All")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Feedback]) -> QuerySet[Feedback]:
        if self.value() == "all":
            return queryset
        return queryset.filter(status=self.value() or Feedback.Status.PENDING)

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        for value, label in [(None, Feedback.Status.PENDING.label), *self.lookup_choices]:
            yield {
                "selected": self.value() == value,
                "query_string": changelist.get_query_string({self.parameter_name: value}),
                "display": label,
            }


class RatingFilter(admin.SimpleListFilter):
    title = "rating"
    parameter_name = "rating"
    ranges = {"low": (1, 3), "middle": (4, 6), "high": (7, 10)}

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        named = [(name, f"{low} to {high}") for name, (low, high) in self.ranges.items()]
        return [*named, ("none", "None given")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Feedback]) -> QuerySet[Feedback]:
        if self.value() == "none":
            return queryset.filter(rating__isnull=True)
        bounds = self.ranges.get(self.value() or "")
        return queryset.filter(rating__range=bounds) if bounds else queryset


class CaptionVersionFilter(admin.SimpleListFilter):
    title = "model version"
    parameter_name = "version"
    field = "model_version"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(version, version) for version in ModelVersion.objects.values_list("pk", flat=True)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(**{self.field: self.value()}) if self.value() else queryset


class FeedbackVersionFilter(CaptionVersionFilter):
    field = "caption__model_version"
