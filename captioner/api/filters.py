"""What `GET /captions` can be narrowed to."""

from datetime import UTC, datetime

import django_filters
from django.core.exceptions import ValidationError

from captioner.models import Caption, CaptionQuerySet, Feedback


def _validate_in_utc(value: datetime) -> None:
    """A time of year 1 or 9999 may have no counterpart in UTC, in which the database compares."""
    try:
        value.astimezone(UTC)
    except OverflowError:
        raise ValidationError("This time is out of range.") from None


class CaptionFilter(django_filters.FilterSet):  # type: ignore[misc]  # the library is untyped
    search = django_filters.CharFilter(
        method="search_both", help_text="Part of the caption, or of what you would have written."
    )
    model_version = django_filters.CharFilter(help_text="The model version that wrote the caption.")
    feedback_status = django_filters.ChoiceFilter(
        field_name="feedback__status",
        choices=Feedback.Status.choices,
        null_label="No feedback",
        null_value="none",
        help_text="How far the review of your feedback got; `none` for captions without feedback.",
    )
    created_after = django_filters.IsoDateTimeFilter(
        field_name="created_at",
        lookup_expr="gte",
        validators=[_validate_in_utc],
        help_text="At this time or later.",
    )
    created_before = django_filters.IsoDateTimeFilter(
        field_name="created_at",
        lookup_expr="lt",
        validators=[_validate_in_utc],
        help_text="Before this time.",
    )

    def search_both(self, captions: CaptionQuerySet, _name: str, text: str) -> CaptionQuerySet:
        return captions.search(text)

    class Meta:
        model = Caption
        fields: list[str] = []
