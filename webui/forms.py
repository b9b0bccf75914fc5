"""The forms of the pages. `captioner.captions.feedback` decides which feedback is valid."""

from collections.abc import Callable
from datetime import date, datetime, time, timedelta

from django import forms
from django.utils.timezone import make_aware

from captioner.captions.exports import EXPORT_FORMATS
from captioner.models import IDEAL_CAPTION_MAX_LENGTH, ApiKey, CaptionQuerySet

RATINGS = range(1, 11)


# What captions may be narrowed down to: the value in addresses, its name for people, and what finds them.
KINDS: dict[str, tuple[str, Callable[[CaptionQuerySet], CaptionQuerySet]]] = {
    "unseen": ("Not looked at", CaptionQuerySet.not_looked_at),
    "corrected": ("In your words", CaptionQuerySet.corrected),
    "doubtful": ("Doubtful", CaptionQuerySet.doubtful),
    "approved": ("Approved", CaptionQuerySet.approved),
}


class CaptionFilterForm(forms.Form):
    """Which of a person's captions: as the query of the history, the worksheet and of exports."""

    q = forms.CharField(required=False, max_length=200)
    only = forms.ChoiceField(
        required=False, choices=[("", "All"), *((kind, name) for kind, (name, _) in KINDS.items())]
    )
    version = forms.CharField(required=False, max_length=100)
    since = forms.DateField(required=False, widget=forms.DateInput(attrs={"type": "date"}))
    until = forms.DateField(required=False, widget=forms.DateInput(attrs={"type": "date"}))
    job = forms.UUIDField(required=False, widget=forms.HiddenInput)

    def found(self, captions: CaptionQuerySet) -> CaptionQuerySet:
        """Returns those of `captions` that the form, which is valid, asks for."""
        wish = self.cleaned_data
        if wish["q"]:
            captions = captions.search(wish["q"])
        if wish["only"]:
            captions = KINDS[wish["only"]][1](captions)
        if wish["version"]:
            captions = captions.filter(model_version=wish["version"])
        if wish["since"]:
            captions = captions.filter(created_at__gte=_midnight(wish["since"]))
        if wish["until"]:
            captions = captions.filter(created_at__lt=_midnight(wish["until"] + timedelta(days=1)))
        if wish["job"]:
            # In the order in which they were sent, here and in what is taken along.
            captions = captions.filter(job_photo__job=wish["job"]).order_by("job_photo__index")
        return captions


def _midnight(day: date) -> datetime:
    return make_aware(datetime.combine(day, time.min))


class ExportForm(forms.Form):
    format = forms.ChoiceField(choices=[(key, form.name) for key, form in EXPORT_FORMATS.items()])
    bom = forms.BooleanField(required=False)


class CaptionTextForm(forms.Form):
    """A row of the worksheet: a text, or the place of a candidate that is taken instead."""

    caption = forms.CharField(required=False)
    use = forms.IntegerField(required=False, min_value=0)


class PlaceForm(forms.Form):
    """A word of a caption, by its place from 0."""

    word = forms.IntegerField(min_value=0)


class FeedbackForm(forms.Form):
    rating = forms.TypedChoiceField(
        required=False,
        widget=forms.RadioSelect,
        coerce=int,
        empty_value=None,
        choices=[(rating, str(rating)) for rating in RATINGS],
        error_messages={"invalid_choice": "The rating is a whole number from 1 to 10."},
    )
    ideal_caption = forms.CharField(
        required=False,
        widget=forms.Textarea(
            attrs={"rows": 3, "maxlength": IDEAL_CAPTION_MAX_LENGTH, "dir": "auto", "data-draft": True}
        ),
    )


class ApiKeyForm(forms.Form):
    name = forms.CharField(
        max_length=ApiKey._meta.get_field("name").max_length,
        widget=forms.TextInput(
            attrs={"placeholder": "e.g. the shop's photo importer", "autocomplete": "off"}
        ),
    )
