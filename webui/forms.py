"""The forms of the pages. `captioner.captions.feedback` decides which feedback is valid."""

from django import forms

from captioner.models import IDEAL_CAPTION_MAX_LENGTH, ApiKey

RATINGS = range(1, 11)


class SearchForm(forms.Form):
    q = forms.CharField(required=False, max_length=200)


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
        widget=forms.Textarea(attrs={"rows": 3, "maxlength": IDEAL_CAPTION_MAX_LENGTH, "dir": "auto"}),
    )


class ApiKeyForm(forms.Form):
    name = forms.CharField(
        max_length=ApiKey._meta.get_field("name").max_length,
        widget=forms.TextInput(
            attrs={"placeholder": "e.g. the shop's photo importer", "autocomplete": "off"}
        ),
    )
