"""Names, types and ranges of the fields of requests and answers; the domain services give them their meaning."""

import base64
import dataclasses
import string
from functools import cache
from typing import Any, cast

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.reverse import reverse

from captioner.captions.captions import parameters_from
from captioner.captions.exports import EXPORT_FORMATS
from captioner.captions.states import FeedbackState, feedback_states
from captioner.inference.types import MAX_NEW_TOKENS, MAX_NUM_BEAMS, MAX_NUM_CAPTIONS, DecodingParameters
from captioner.jobs.names import CODE_PAGES
from captioner.models import END_USER_MAX_LENGTH, IDEAL_CAPTION_MAX_LENGTH, Caption, Feedback, Job, Photo
from captioner.serving.process import serving
from models_registry.versions import versions_numbered

DECODING_OPTIONS = tuple(field.name for field in dataclasses.fields(DecodingParameters))

# --- Requests -----------------------------------------------------------------------------------------------


class WholeNumberField(serializers.IntegerField):
    """An integer of a closed range; every error message names the range."""

    def __init__(self, low: int, high: int, **kwargs: Any) -> None:
        message = f"Give a whole number from {low} to {high}."
        codes = ("invalid", "min_value", "max_value", "max_string_length", "null")
        super().__init__(
            min_value=low, max_value=high, error_messages=dict.fromkeys(codes, message), **kwargs
        )


@extend_schema_field(OpenApiTypes.BINARY)
class UploadField(serializers.FileField):
    """An uploaded file, validated to its bytes."""

    default_error_messages = {
        "required": (
            "Send a photo: as multipart field `image`, as the request body, or in JSON as `image_base64`."
        ),
        "invalid": (
            "This part of the form has no file name, so it is text. Send the photo as a file:"
            ' `curl -F image=@photo.jpg`, or `filename="photo.jpg"` in its Content-Disposition.'
        ),
    }

    def __init__(self, **kwargs: Any) -> None:
        # The photo intake refuses an empty file, with a clearer message.
        super().__init__(allow_empty_file=True, **kwargs)

    def to_internal_value(self, data: Any) -> bytes:  # type: ignore[override]
        content: bytes = super().to_internal_value(data).read()
        return content


@extend_schema_field(OpenApiTypes.BYTE)
class Base64Field(serializers.Field[bytes, str, str, Any]):
    """Base64, validated to its bytes; line breaks and a `data:` URL around it are accepted."""

    default_error_messages = {
        "invalid": "This is not Base64: use the standard alphabet with padding, or a base64 data: URL."
    }

    def to_internal_value(self, data: Any) -> bytes:
        if not isinstance(data, str):
            self.fail("invalid")
        if data.startswith("data:"):
            _, marker, data = data.partition(";base64,")
            if not marker:
                self.fail("invalid")
        try:
            # Not split and joined: that would make an object of each piece.
            letters = data.encode("ascii").translate(None, string.whitespace.encode())
            return base64.b64decode(letters, validate=True)
        except ValueError:
            self.fail("invalid")


class DecodingOptionsSerializer(serializers.Serializer[Any]):
    """Decoding options. The serving model's own settings apply to those that are not given."""

    num_captions = WholeNumberField(
        1, MAX_NUM_CAPTIONS, required=False, help_text="How many different captions."
    )
    num_beams = WholeNumberField(
        1,
        MAX_NUM_BEAMS,
        required=False,
        help_text="Beam width; at least `num_captions`. 1 is greedy decoding.",
    )
    max_new_tokens = WholeNumberField(
        1, MAX_NEW_TOKENS, required=False, help_text="Length limit of a caption."
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Adds `parameters`: `DecodingParameters`, or None without options. Raises `ModelUnavailable`."""
        options = {name: attrs[name] for name in DECODING_OPTIONS if name in attrs}
        if not options:
            return attrs | {"parameters": None}
        try:
            parameters = parameters_from(serving.engine().default_parameters, **options)
        except ValueError as error:
            raise serializers.ValidationError({"num_beams": [str(error)]}) from None
        return attrs | {"parameters": parameters}


class EndUserSerializer(serializers.Serializer[Any]):
    """For whom a program asks. What one of them corrects counts as what one author says."""

    user = serializers.CharField(
        required=False,
        max_length=END_USER_MAX_LENGTH,
        help_text=(
            "For whom this is asked, as your program calls them: an opaque id, no name or address. With API keys only."
        ),
    )


class CaptionOptionsSerializer(EndUserSerializer, DecodingOptionsSerializer):
    """What may be said about one photo, along with it or in the query."""


class CaptionUploadSerializer(CaptionOptionsSerializer):
    image = UploadField(help_text="JPEG, PNG, WebP, GIF or HEIC.")


class CaptionBase64Serializer(CaptionOptionsSerializer):
    image_base64 = Base64Field(
        source="image", help_text="JPEG, PNG, WebP, GIF or HEIC, in Base64 or as a data: URL."
    )


class JobOptionsSerializer(DecodingOptionsSerializer):
    """As for one photo, but checked without the model, which may not be ready; the options are stored as given."""

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        try:
            parameters_from(DecodingParameters(), **attrs)
        except ValueError as error:
            raise serializers.ValidationError({"num_beams": [str(error)]}) from None
        return attrs


class JobSenderSerializer(EndUserSerializer):
    """What a job's sender may say besides decoding options."""

    code_page = serializers.ChoiceField(
        CODE_PAGES,
        required=False,
        help_text=(
            "Of the names in a ZIP that are not marked as UTF-8. Without it, UTF-8 is recognized and the rest guessed."
        ),
    )


class JobUploadSerializer(JobSenderSerializer, JobOptionsSerializer):
    """One ZIP of photos, or several photos, and how to caption them."""

    # Describes the form in the OpenAPI schema; the view takes the files themselves, which may be large.

    archive = UploadField(required=False, help_text="A ZIP of photos.")
    image = serializers.ListField(child=UploadField(), required=False, help_text="Photos, instead of a ZIP.")


class CaptionExportSerializer(serializers.Serializer[Any]):
    """What to make of the captions that the filters find."""

    format = serializers.ChoiceField([*EXPORT_FORMATS], default="csv")
    bom = serializers.BooleanField(default=False, help_text="Begin CSV with a byte order mark, for Excel.")


class CaptionUpdateSerializer(serializers.Serializer[Any]):
    decorative = serializers.BooleanField(
        help_text="Whether the photo tells nothing on a page: exports then give it an empty alt text."
    )


class FeedbackRequestSerializer(serializers.Serializer[Any]):
    """A rating, a better caption, or both. Sending feedback again replaces what was sent before."""

    rating = WholeNumberField(1, 10, required=False, allow_null=True, help_text="1 (worst) to 10 (best).")
    ideal_caption = serializers.CharField(
        required=False,
        allow_null=True,
        allow_blank=True,
        max_length=IDEAL_CAPTION_MAX_LENGTH,
        help_text=(
            "What the caption should have been. One that differs from it only in case, marks and spaces is taken for"
            " approval: for a rating of 10 unless you send one. It becomes the `caption` all the same."
        ),
    )


# --- Answers ------------------------------------------------------------------------------------------------


class AlternativeSerializer(serializers.Serializer[Any]):
    caption = serializers.CharField()
    confidence = serializers.FloatField(allow_null=True)


class WordSerializer(serializers.Serializer[Any]):
    text = serializers.CharField()
    probability = serializers.FloatField(min_value=0, max_value=1)


class ServingModelSerializer(serializers.Serializer[Caption]):
    name = serializers.CharField(source="model_name")
    version = serializers.CharField(source="model_version")


class ImageSerializer(serializers.ModelSerializer[Photo]):
    class Meta:
        model = Photo
        fields = ["sha256", "width", "height"]
        read_only_fields = fields


class LinksSerializer(serializers.Serializer[Any]):
    self = serializers.URLField()
    photo = serializers.URLField()
    thumbnail = serializers.URLField()
    feedback = serializers.URLField()
    again = serializers.URLField()


class FeedbackStateSerializer(serializers.Serializer[FeedbackState]):
    state = serializers.ChoiceField(
        ["waiting", "approved", "rated", "memory", "taught", "chose", "tests", "left_out", "unlearned"],
        read_only=True,
    )
    told = serializers.CharField(help_text="The same in words.")
    version = serializers.CharField(allow_blank=True, help_text="Which version that is about.")
    reason = serializers.CharField(allow_blank=True, help_text="Why it was left out, as a code.")
    since = serializers.DateTimeField(allow_null=True, help_text="Since when it is in memory.")


class NowSaysSerializer(serializers.Serializer[Feedback]):
    version = serializers.CharField(source="now_says_version")
    caption = serializers.CharField(source="now_says")


class FeedbackSerializer(serializers.ModelSerializer[Feedback]):
    states = serializers.SerializerMethodField(help_text="What became of it.")
    now_says = serializers.SerializerMethodField(
        help_text="What a later version said of the photo when it was asked; null before."
    )

    class Meta:
        model = Feedback
        fields = ["rating", "ideal_caption", "status", "states", "now_says", "created_at", "updated_at"]
        read_only_fields = fields

    @extend_schema_field(FeedbackStateSerializer(many=True))
    def get_states(self, feedback: Feedback) -> Any:
        # Once for a list, whose rows share the context.
        context = cast("dict[str, Any]", self.context)
        numbered = context.setdefault("versions_numbered", cache(versions_numbered))
        return [FeedbackStateSerializer(state).data for state in feedback_states(feedback, numbered)]

    @extend_schema_field(NowSaysSerializer(allow_null=True))
    def get_now_says(self, feedback: Feedback) -> Any:
        return NowSaysSerializer(feedback).data if feedback.now_says_version else None


class CaptionSerializer(serializers.ModelSerializer[Caption]):
    caption = serializers.CharField(source="final_text", read_only=True)
    machine_caption = serializers.CharField(
        source="text", read_only=True, help_text="What the model wrote, whatever `caption` is."
    )
    source = serializers.SerializerMethodField(  # type: ignore[assignment]  # a field here, as `errors` below
        help_text=(
            "`person` where `caption` is your own correction, `memory` where it is what was approved for the same"
            " photo before; `words` and `confidence`, which are the model's, are then left out."
        )
    )
    confidence = serializers.FloatField(
        read_only=True,
        allow_null=True,
        help_text=(
            "Estimated probability that the caption comes close to what people would write about the photo: that its"
            " CIDEr-D would reach a threshold, which the weights name. Null where they were never calibrated."
        ),
    )
    decorative = serializers.BooleanField(
        source="is_decorative", read_only=True, help_text="You said that it needs no alt text."
    )
    alternatives = AlternativeSerializer(many=True, read_only=True)
    words = WordSerializer(many=True, read_only=True)
    model = ServingModelSerializer(source="*", read_only=True)
    image = ImageSerializer(source="photo", read_only=True)
    user = serializers.CharField(
        source="end_user", read_only=True, help_text="For whom a key asked; empty where it did not say."
    )
    timings_ms = serializers.DictField(child=serializers.FloatField(), read_only=True)
    feedback = FeedbackSerializer(read_only=True, allow_null=True)
    links = serializers.SerializerMethodField()

    class Meta:
        model = Caption
        fields = [
            "id",
            "caption",
            "machine_caption",
            "source",
            "file_name",
            "decorative",
            "looked_at",
            "confidence",
            "alternatives",
            "words",
            "model",
            "image",
            "user",
            "timings_ms",
            "created_at",
            "feedback",
            "links",
        ]
        read_only_fields = fields

    def to_representation(self, instance: Caption) -> dict[str, Any]:
        shown: dict[str, Any] = super().to_representation(instance)
        return shown if instance.final_source == "model" else shown | {"confidence": None, "words": []}

    @extend_schema_field(serializers.ChoiceField(["model", "memory", "person"]))
    def get_source(self, caption: Caption) -> str:
        return caption.final_source

    @extend_schema_field(LinksSerializer)
    def get_links(self, caption: Caption) -> dict[str, str]:
        routes = {"self": "detail"} | {name: name for name in ("photo", "thumbnail", "feedback", "again")}
        request = self.context["request"]
        return {
            name: reverse(f"api:caption-{route}", [caption.pk], request=request)
            for name, route in routes.items()
        }


class JobPhotosSerializer(serializers.Serializer[Any]):
    """The number of photos by state."""

    total = serializers.IntegerField(source="photo_count", read_only=True)
    captioned = serializers.IntegerField(read_only=True)
    failed = serializers.IntegerField(read_only=True)
    cancelled = serializers.IntegerField(read_only=True)
    pending = serializers.IntegerField(read_only=True)


class JobLinksSerializer(serializers.Serializer[Any]):
    self = serializers.URLField()
    results = serializers.URLField()


class JobSerializer(serializers.ModelSerializer[Job]):
    status = serializers.ChoiceField(
        [status.value for status in Job.Status if status != Job.Status.RECEIVING], read_only=True
    )
    photos = JobPhotosSerializer(source="*", read_only=True)
    user = serializers.CharField(
        source="end_user", read_only=True, help_text="For whom a key asked; empty where it did not say."
    )
    links = serializers.SerializerMethodField()

    class Meta:
        model = Job
        fields = ["id", "status", "photos", "user", "created_at", "finished_at", "links"]
        read_only_fields = fields

    @extend_schema_field(JobLinksSerializer)
    def get_links(self, job: Job) -> dict[str, str]:
        request = self.context["request"]
        routes = {"self": "detail", "results": "results"}
        return {
            name: reverse(f"api:job-{route}", [job.pk], request=request) for name, route in routes.items()
        }


class InvalidFieldSerializer(serializers.Serializer[Any]):
    field = serializers.CharField()
    detail = serializers.CharField()


class ProblemSerializer(serializers.Serializer[Any]):
    """Problem details (RFC 9457)."""

    type = serializers.CharField(help_text="Stable name of the kind of problem: `urn:captioner:problem:...`.")
    title = serializers.CharField()
    status = serializers.IntegerField(help_text="The HTTP status.")
    detail = serializers.CharField(help_text="What is wrong with this request, and what is allowed.")
    errors = InvalidFieldSerializer(  # type: ignore[assignment]  # a field here, as the metaclass takes it
        many=True, required=False, help_text="What was wrong with which field."
    )
    reason = serializers.CharField(required=False, help_text="Why a photo was refused, e.g. `truncated`.")
    retry_after = serializers.IntegerField(required=False, help_text="Seconds to wait before another try.")
