"""`/api/v1/captions`: each method reads its request, calls one service and shows the result."""

import re
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import Any

import django_filters
from django.core.exceptions import ValidationError as DjangoValidationError
from django.core.files.base import File
from django.core.files.uploadedfile import SimpleUploadedFile
from django.http import FileResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.cache import get_conditional_response
from django_filters.fields import IsoDateTimeField
from rest_framework import status
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response

from captioner.api import schema
from captioner.api.access import end_user_of
from captioner.api.owned import OwnedViewSet
from captioner.api.parsers import JsonObjectParser, JsonPhotoParser, OctetStreamParser, PhotoParser, is_photo
from captioner.api.serializers import (
    CaptionBase64Serializer,
    CaptionExportSerializer,
    CaptionOptionsSerializer,
    CaptionSerializer,
    CaptionUpdateSerializer,
    CaptionUploadSerializer,
    FeedbackRequestSerializer,
    FeedbackSerializer,
)
from captioner.captions.captions import caption_create, caption_delete
from captioner.captions.feedback import feedback_ask_again, feedback_submit
from captioner.captions.photos import photo_open, thumbnail_open
from captioner.http.client import client_gone
from captioner.http.exports import export_response
from captioner.http.idempotency import create_once
from captioner.http.owner import owner_of
from captioner.jobs.names import name_shown
from captioner.models import Caption, CaptionQuerySet, Feedback, Photo

# "T12:00:00.5 01:00": a time of day, a blank, and all of a zone but its sign.
_ZONE_AFTER_BLANK = re.compile(r"(T\d\d:[\d:.]+) (\d\d:?\d\d)$")


def _validate_in_utc(value: datetime) -> None:
    """A time of year 1 or 9999 may have no counterpart in UTC, in which the database compares."""
    try:
        value.astimezone(UTC)
    except OverflowError:
        raise DjangoValidationError("This time is out of range.") from None


class _IdsFilter(django_filters.BaseInFilter, django_filters.UUIDFilter):  # type: ignore[misc]  # untyped
    pass


class _TimeField(IsoDateTimeField):  # type: ignore[misc]  # the library is untyped
    """Takes a zone's plus that arrived as a blank, as it does from whoever writes an address by hand."""

    def to_python(self, value: Any) -> Any:
        return super().to_python(_ZONE_AFTER_BLANK.sub(r"\1+\2", value) if isinstance(value, str) else value)


class _TimeFilter(django_filters.IsoDateTimeFilter):  # type: ignore[misc]
    field_class = _TimeField


class CaptionFilter(django_filters.FilterSet):  # type: ignore[misc]  # the library is untyped
    search = django_filters.CharFilter(
        method="filter_words", help_text="Words that `caption` has, in any order and letter case."
    )
    user = django_filters.CharFilter(field_name="end_user", help_text="For whom your key asked.")
    model_version = django_filters.CharFilter(help_text="The model version that wrote the caption.")
    feedback_status = django_filters.ChoiceFilter(
        field_name="feedback__status",
        choices=Feedback.Status.choices,
        null_label="No feedback",
        null_value="none",
        help_text="Review state of your feedback; `none` for captions without feedback.",
    )
    job = django_filters.UUIDFilter(
        field_name="job_photo__job", help_text="The job that the caption was made by."
    )
    ids = _IdsFilter(
        field_name="pk", lookup_expr="in", help_text="These captions, up to 1,000: ids with commas between."
    )
    looked_at = django_filters.BooleanFilter(
        method="filter_looked_at", help_text="Whether you went through it, or gave feedback."
    )
    created_after = _TimeFilter(
        field_name="created_at",
        lookup_expr="gte",
        validators=[_validate_in_utc],
        help_text="At this time or later.",
    )
    created_before = _TimeFilter(
        field_name="created_at",
        lookup_expr="lt",
        validators=[_validate_in_utc],
        help_text="Before this time.",
    )

    def filter_words(self, captions: CaptionQuerySet, _name: str, text: str) -> CaptionQuerySet:
        return captions.search(text)

    def filter_looked_at(self, captions: CaptionQuerySet, _name: str, is_wanted: bool) -> CaptionQuerySet:
        fresh = captions.not_looked_at()
        return captions.exclude(pk__in=fresh.values("pk")) if is_wanted else fresh

    class Meta:
        model = Caption
        fields: list[str] = []


@schema.CAPTIONS
class CaptionViewSet(OwnedViewSet[Caption]):
    """The caller's own captions; those of others are not found."""

    queryset = Caption.objects.with_details()
    serializer_class = CaptionSerializer
    not_found_message = "You have no caption with this id."
    filterset_class = CaptionFilter
    parser_classes = [MultiPartParser, JsonPhotoParser, PhotoParser, OctetStreamParser]

    def get_queryset(self) -> CaptionQuerySet:
        own = Caption.objects.owned_by(owner_of(self.request)).with_details()
        # A page of the history asks for two dozen photos at once, and none of them says what became of feedback.
        return own if self.action == "photo" else own.prefetch_related("feedback__uses")

    def create(self, request: Request) -> Response:
        photo = _photo_request(request)
        image, parameters = photo["image"], photo["parameters"]
        sent = request.FILES.get("image")
        end_user = end_user_of(request, photo)
        caption, headers = create_once(
            request,
            lambda note: caption_create(
                image,
                owner=owner_of(request, end_user),
                source=Caption.Source.API,
                file_name=name_shown(sent.name or "") if sent is not None else "",
                parameters=parameters,
                is_abandoned=partial(client_gone, request._request),
                on_logged=note,
            ),
            options=(asdict(parameters) if parameters else {}) | ({"user": end_user} if end_user else {}),
            content=lambda: [image],
        )
        answer = self.get_serializer(caption).data
        headers["Location"] = answer["links"]["self"]
        return Response(answer, status.HTTP_201_CREATED, headers=headers)

    @action(detail=False)
    def export(self, request: Request) -> StreamingHttpResponse:
        wanted = CaptionExportSerializer(data=request.query_params)
        wanted.is_valid(raise_exception=True)
        captions = self.filter_queryset(self.get_queryset())
        return export_response(captions, wanted.validated_data["format"], bom=wanted.validated_data["bom"])

    def partial_update(self, request: Request, pk: str) -> Response:
        caption = self.get_object()
        wishes = CaptionUpdateSerializer(data=request.data)
        wishes.is_valid(raise_exception=True)
        caption.is_decorative = wishes.validated_data["decorative"]
        caption.save(update_fields=["is_decorative"])
        return Response(self.get_serializer(caption).data)

    def destroy(self, request: Request, pk: str) -> Response:
        caption_delete(self.get_object())
        return Response(status=status.HTTP_204_NO_CONTENT)

    # Not throttled: a page of the history asks for two dozen at once.
    @action(detail=True, throttle_classes=[])
    def photo(self, request: Request, pk: str) -> HttpResponseBase:
        return _photo_response(request, self.get_object().photo, photo_open, "image/jpeg")

    @action(detail=True, throttle_classes=[])
    def thumbnail(self, request: Request, pk: str) -> HttpResponseBase:
        return _photo_response(request, self.get_object().photo, thumbnail_open, "image/webp")

    @action(detail=True, methods=["post"], parser_classes=[JsonObjectParser])
    def feedback(self, request: Request, pk: str) -> Response:
        caption = self.get_object()
        opinion = FeedbackRequestSerializer(data=request.data)
        opinion.is_valid(raise_exception=True)
        feedback, is_new = feedback_submit(
            caption,
            rating=opinion.validated_data.get("rating"),
            ideal_caption=opinion.validated_data.get("ideal_caption") or "",
        )
        answer = FeedbackSerializer(feedback).data
        return Response(answer, status.HTTP_201_CREATED if is_new else status.HTTP_200_OK)

    @action(detail=True, methods=["post"])
    def again(self, request: Request, pk: str) -> Response:
        feedback = getattr(self.get_object(), "feedback", None)
        if feedback is None:
            raise NotFound("You gave no feedback on this caption.")
        try:
            feedback_ask_again(feedback)
        except FileNotFoundError:
            raise NotFound("The photo of this caption is lost; only its caption is left.") from None
        return Response(FeedbackSerializer(feedback).data)


def _photo_response(
    request: Request, photo: Photo, file_open: Callable[[Photo], "File[bytes]"], media_type: str
) -> HttpResponseBase:
    etag = f'"{photo.sha256}"'
    response: HttpResponseBase | None = get_conditional_response(request._request, etag=etag)
    if response is None:
        try:
            response = FileResponse(file_open(photo), content_type=media_type)
        except FileNotFoundError:
            raise NotFound("The photo of this caption is lost; only its caption is left.") from None
    response["ETag"] = etag
    # For the owner's browser only, which asks again each time: what was deleted must not linger.
    response["Cache-Control"] = "private, no-cache"
    return response


def _photo_request(request: Request) -> dict[str, Any]:
    """Returns the validated `image` (bytes) and decoding `parameters`, which come with the photo or in the query."""
    photos = len(request.FILES.getlist("image"))
    if photos > 1:
        raise ValidationError({"image": [f"Send one photo per request; this one has {photos}."]})
    body: Any = request.data  # a QueryDict or, by our parsers, a dict
    if not body and is_photo(request.content_type):
        body = {"image": SimpleUploadedFile("image", b"")}  # REST framework asks no parser for an empty body
    options = CaptionOptionsSerializer().get_fields()
    query = {name: request.query_params[name] for name in options if name in request.query_params}
    serializer = CaptionBase64Serializer if "image_base64" in body else CaptionUploadSerializer
    photo = serializer(data=query | dict(body.items()))
    photo.is_valid(raise_exception=True)
    validated: dict[str, Any] = photo.validated_data
    return validated
