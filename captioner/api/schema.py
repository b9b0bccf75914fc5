"""Summaries, examples and responses of the OpenAPI schema that cannot be read off the views."""

from http import HTTPStatus
from typing import Any

from django.conf import settings
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    extend_schema,
    extend_schema_view,
)

from captioner.api.pagination import NewestFirstPagination
from captioner.api.serializers import (
    CaptionBase64Serializer,
    CaptionExportSerializer,
    CaptionOptionsSerializer,
    CaptionSerializer,
    CaptionUpdateSerializer,
    CaptionUploadSerializer,
    DecodingOptionsSerializer,
    FeedbackRequestSerializer,
    FeedbackSerializer,
    JobSenderSerializer,
    JobSerializer,
    JobUploadSerializer,
    ProblemSerializer,
)
from captioner.captions.exports import EXPORT_FORMATS
from captioner.captions.photos import THUMBNAIL_SIDE
from captioner.http import problems as errors
from captioner.http.idempotency import HEADER
from captioner.jobs.results import FORMATS

_PAGE_SIZE = {
    "type": "integer",
    "minimum": 1,
    "maximum": NewestFirstPagination.max_page_size,
    "default": NewestFirstPagination.page_size,
}
_UUID = "7c0f3d36-93a1-4a8e-9d3f-0a2f5f2f6d11"
_CAPTION = {
    "id": _UUID,
    "caption": "a dog runs across a field",
    "machine_caption": "a dog runs across a field",
    "source": "model",
    "file_name": "dog.jpg",
    "decorative": False,
    "looked_at": None,
    "confidence": None,
    "alternatives": [{"caption": "a brown dog is running on grass", "confidence": None}],
    "words": [{"text": "a", "probability": 0.98}, {"text": "dog", "probability": 0.91}],
    "model": {"name": "captioner", "version": "starter-1"},
    "image": {
        "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "width": 640,
        "height": 480,
    },
    "user": "",
    "timings_ms": {"decode": 6.1, "queue": 0.2, "inference": 84.0, "total": 95.3},
    "created_at": "2026-01-31T12:00:00Z",
    "feedback": None,
    "links": {
        "self": f"https://captioner.example/api/v1/captions/{_UUID}",
        "photo": f"https://captioner.example/api/v1/captions/{_UUID}/photo",
        "thumbnail": f"https://captioner.example/api/v1/captions/{_UUID}/thumbnail",
        "feedback": f"https://captioner.example/api/v1/captions/{_UUID}/feedback",
        "again": f"https://captioner.example/api/v1/captions/{_UUID}/again",
    },
}


class ApiKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "captioner.api.access.ApiKeyAuthentication"
    name = "apiKey"

    def get_security_requirement(self, auto_schema: AutoSchema) -> list[dict[str, list[Any]]]:
        # An empty requirement says that signing in is optional.
        return [{self.name: []}, *([{}] if settings.ALLOW_ANONYMOUS else [])]

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, Any]:
        return {"type": "http", "scheme": "bearer", "description": "An API key of your account."}


def problems(*statuses: int) -> dict[tuple[int, str], OpenApiResponse]:
    """Returns responses with problem details, for these statuses and for those that every operation can give."""
    return {
        (status, errors.MEDIA_TYPE): OpenApiResponse(ProblemSerializer, HTTPStatus(status).phrase)
        for status in sorted({*statuses, 400, 401, 403, 429, 503})
    }


_IDEMPOTENCY_KEY = OpenApiParameter(
    HEADER,
    str,
    OpenApiParameter.HEADER,
    description=(
        "Makes it safe to send a request again when its answer was lost: for a day, the same key with the same"
        " content gets what was made the first time. Any text of up to 255 characters, e.g. a UUID."
    ),
)
_CREATE = extend_schema(
    summary="Caption a photo",
    description=(
        "Send one photo as a form (`image`), as the request body itself, or in JSON (`image_base64`). Options"
        " are form fields, JSON members or query parameters. The answer is logged and stays in your history."
    ),
    parameters=[
        CaptionOptionsSerializer,
        _IDEMPOTENCY_KEY,
        OpenApiParameter("Location", OpenApiTypes.URI, OpenApiParameter.HEADER, response=[201]),
        OpenApiParameter(
            "Retry-After", int, OpenApiParameter.HEADER, description="Seconds", response=[429, 503]
        ),
    ],
    request={
        "multipart/form-data": CaptionUploadSerializer,
        "application/json": CaptionBase64Serializer,
        "image/*": OpenApiTypes.BINARY,
        "application/octet-stream": OpenApiTypes.BINARY,
    },
    responses={201: CaptionSerializer, **problems(409, 413, 415, 422, 504)},
    examples=[OpenApiExample("A caption", _CAPTION, response_only=True, status_codes=["201"])],
)
_FEEDBACK = extend_schema(
    summary="Rate or correct a caption",
    description="A rating, a better caption, or both. What you sent before is replaced and reviewed anew.",
    request=FeedbackRequestSerializer,
    responses={201: FeedbackSerializer, 200: FeedbackSerializer, **problems(404, 413, 415, 422)},
    examples=[
        OpenApiExample("Both", {"rating": 4, "ideal_caption": "two dogs play in the snow"}, request_only=True)
    ],
)

CAPTIONS = extend_schema_view(
    create=_CREATE,
    list=extend_schema(
        summary="Your captions, newest first",
        parameters=[OpenApiParameter(NewestFirstPagination.page_size_query_param, _PAGE_SIZE)],
        responses={200: CaptionSerializer, **problems(422)},
    ),
    retrieve=extend_schema(
        summary="One of your captions", responses={200: CaptionSerializer, **problems(404)}
    ),
    destroy=extend_schema(
        summary="Delete a caption",
        description="Its feedback goes with it, and its photo once no other caption shows it.",
        responses={204: None, **problems(404)},
    ),
    photo=extend_schema(
        summary="The photo of a caption",
        description="As it was stored: upright, in sRGB and without metadata.",
        responses={(200, "image/jpeg"): OpenApiTypes.BINARY, 304: None, **problems(404)},
    ),
    thumbnail=extend_schema(
        summary="The photo of a caption, small",
        description=f"At most {THUMBNAIL_SIDE} pixels wide and high.",
        responses={(200, "image/webp"): OpenApiTypes.BINARY, 304: None, **problems(404)},
    ),
    export=extend_schema(
        summary="Your captions as a file",
        description=(
            "All of them, or those the filters find, newest first. In CSV, text that a spreadsheet would compute begins"
            " with an apostrophe. `coco` has images and annotations, `html` an `<img>` a line, for pasting."
        ),
        parameters=[CaptionExportSerializer],
        filters=True,
        responses={
            **{(200, each.media_type.split(";")[0]): OpenApiTypes.STR for each in EXPORT_FORMATS.values()},
            **problems(422),
        },
    ),
    partial_update=extend_schema(
        summary="Say that a photo is decorative",
        request=CaptionUpdateSerializer,
        responses={200: CaptionSerializer, **problems(404, 413, 415, 422)},
    ),
    feedback=_FEEDBACK,
    again=extend_schema(
        summary="What the present model says of the photo",
        description=(
            "For captions with feedback: captions the stored photo once more, with the version that serves now and the"
            " decoding options of then, and keeps that beside your feedback as `now_says`."
        ),
        request=None,
        responses={200: FeedbackSerializer, **problems(404, 504)},
    ),
)

JOBS = extend_schema_view(
    create=extend_schema(
        summary="Caption many photos in the background",
        description=(
            "Send one ZIP (`archive`, or as the request body) or several photos (`image`). A photo that cannot be"
            " captioned is reported in the results, and the others go on. Captions stay in your history as well."
        ),
        parameters=[
            DecodingOptionsSerializer,
            JobSenderSerializer,
            _IDEMPOTENCY_KEY,
            OpenApiParameter("Location", OpenApiTypes.URI, OpenApiParameter.HEADER, response=[202]),
        ],
        request={"multipart/form-data": JobUploadSerializer, "application/zip": OpenApiTypes.BINARY},
        responses={202: JobSerializer, **problems(409, 413, 415, 422)},
    ),
    list=extend_schema(
        summary="Your jobs, newest first",
        parameters=[OpenApiParameter(NewestFirstPagination.page_size_query_param, _PAGE_SIZE)],
        responses={200: JobSerializer, **problems(422)},
    ),
    retrieve=extend_schema(
        summary="One of your jobs, with its progress", responses={200: JobSerializer, **problems(404)}
    ),
    destroy=extend_schema(
        summary="Cancel a job",
        description="No more of its photos are captioned; its captions so far stay, in the results and your history.",
        responses={204: None, **problems(404)},
    ),
    results=extend_schema(
        summary="The results of a job",
        description=(
            "Of the photos that are done, in the order they were sent. `coco` is the results format of the COCO caption"
            " evaluation."
        ),
        parameters=[
            OpenApiParameter("format", str, enum=[*FORMATS], default="jsonl"),
            OpenApiParameter(
                "bom",
                str,
                enum=["0", "1"],
                default="0",
                description="1: CSV begins with a mark, as Excel wants it.",
            ),
        ],
        responses={
            **{(200, results.media_type.split(";")[0]): OpenApiTypes.STR for results in FORMATS.values()},
            **problems(404, 422),
        },
    ),
)
