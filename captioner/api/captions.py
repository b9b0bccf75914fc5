"""REST over the services: each method reads its request, calls one service and shows the result."""

from dataclasses import asdict
from functools import partial
from typing import Any

from django.core.files.uploadedfile import SimpleUploadedFile
from django.http import FileResponse
from django.http.response import HttpResponseBase
from django.utils.cache import get_conditional_response
from rest_framework import mixins, status
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from captioner.api import schema
from captioner.api.filters import CaptionFilter
from captioner.api.idempotency import create_as_asked
from captioner.api.negotiation import OneRepresentation
from captioner.api.pagination import CaptionPagination
from captioner.api.parsers import JsonObjectParser, OctetStreamParser, PhotoParser, body_bound, is_photo
from captioner.api.serializers import (
    DECODING_OPTIONS,
    CaptionBase64Serializer,
    CaptionSerializer,
    CaptionUploadSerializer,
    FeedbackRequestSerializer,
    FeedbackSerializer,
)
from captioner.captions.captions import caption_create, caption_delete
from captioner.captions.feedback import feedback_submit
from captioner.captions.photos import photo_open
from captioner.http.client import client_gone
from captioner.http.owner import owner_of
from captioner.models import Caption, CaptionQuerySet, Photo


@schema.CAPTIONS
class CaptionViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, GenericViewSet[Caption]):
    """The captions of whoever asks; other people's do not exist here."""

    queryset = Caption.objects.with_details()
    serializer_class = CaptionSerializer
    filterset_class = CaptionFilter
    pagination_class = CaptionPagination
    lookup_value_converter = "uuid"
    content_negotiation_class = OneRepresentation
    parser_classes = [MultiPartParser, JsonObjectParser, PhotoParser, OctetStreamParser]

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        body_bound(request._request)
        super().initial(request, *args, **kwargs)

    def get_queryset(self) -> CaptionQuerySet:
        return Caption.objects.owned_by(owner_of(self.request)).with_details()

    def get_object(self) -> Caption:
        caption = self.get_queryset().filter(pk=self.kwargs["pk"]).first()
        if caption is None:
            raise NotFound("You have no caption with this id.")
        return caption

    def create(self, request: Request) -> Response:
        photo = _photo_request(request)
        image, parameters = photo["image"], photo["parameters"]
        caption, headers = create_as_asked(
            request,
            lambda note: caption_create(
                image,
                owner=owner_of(request),
                source=Caption.Source.API,
                parameters=parameters,
                is_abandoned=partial(client_gone, request._request),
                on_logged=note,
            ),
            options=asdict(parameters) if parameters else {},
            content=lambda: [image],
        )
        answer = self.get_serializer(caption).data
        headers["Location"] = answer["links"]["self"]
        return Response(answer, status.HTTP_201_CREATED, headers=headers)

    def destroy(self, request: Request, pk: str) -> Response:
        caption_delete(self.get_object())
        return Response(status=status.HTTP_204_NO_CONTENT)

    # Not throttled: a page of the history asks for two dozen at once.
    @action(detail=True, throttle_classes=[])
    def photo(self, request: Request, pk: str) -> HttpResponseBase:
        photo = self.get_object().photo
        etag = f'"{photo.sha256}"'
        response = get_conditional_response(request._request, etag=etag) or _photo_response(photo)
        response["ETag"] = etag
        # For the owner's browser only, which asks again each time: what was deleted must not linger.
        response["Cache-Control"] = "private, no-cache"
        return response

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


def _photo_response(photo: Photo) -> FileResponse:
    try:
        return FileResponse(photo_open(photo), content_type="image/jpeg")
    except FileNotFoundError:
        raise NotFound("The photo of this caption is lost; only its caption is left.") from None


def _photo_request(request: Request) -> dict[str, Any]:
    """The validated `image` (bytes) and decoding `parameters`; those come with the photo or in the query."""
    photos = len(request.FILES.getlist("image"))
    if photos > 1:
        raise ValidationError({"image": [f"Send one photo per request; this one has {photos}."]})
    body: Any = request.data  # a QueryDict or, by our parsers, a dict
    if not body and is_photo(request.content_type):
        body = {"image": SimpleUploadedFile("image", b"")}  # which no parser is asked for
    query = {name: request.query_params[name] for name in DECODING_OPTIONS if name in request.query_params}
    serializer = CaptionBase64Serializer if "image_base64" in body else CaptionUploadSerializer
    photo = serializer(data=query | dict(body.items()))
    photo.is_valid(raise_exception=True)
    validated: dict[str, Any] = photo.validated_data
    return validated
