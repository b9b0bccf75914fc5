"""`/api/v1/jobs`: batch jobs and their results."""

from itertools import chain
from typing import Any

from django.conf import settings
from django.core.files.uploadedfile import UploadedFile
from django.http import QueryDict, StreamingHttpResponse
from rest_framework import status
from rest_framework.decorators import action
from rest_framework.exceptions import ValidationError
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response

from captioner.api import schema
from captioner.api.access import end_user_of
from captioner.api.owned import OwnedViewSet
from captioner.api.parsers import ZipParser
from captioner.api.serializers import (
    DECODING_OPTIONS,
    JobOptionsSerializer,
    JobSenderSerializer,
    JobSerializer,
)
from captioner.captions.sheets import BOM
from captioner.http.idempotency import create_once
from captioner.http.owner import caller_of, owner_of
from captioner.jobs import services as jobs
from captioner.jobs.archives import SentPhoto
from captioner.jobs.results import FORMATS
from captioner.jobs.uploads import photos_sent
from captioner.models import Job, JobQuerySet


@schema.JOBS
class JobViewSet(OwnedViewSet[Job]):
    """The caller's own batch jobs; those of others are not found."""

    queryset = Job.objects.with_progress()
    serializer_class = JobSerializer
    not_found_message = "You have no job with this id."
    filter_backends = []
    parser_classes = [MultiPartParser, ZipParser]

    def get_queryset(self) -> JobQuerySet:
        jobs = Job.objects.owned_by(owner_of(self.request))
        return jobs.exclude(status=Job.Status.RECEIVING).with_progress()

    def body_limit(self) -> int:
        return settings.JOB_MAX_MEGABYTES * 2**20

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if self.action == "create":  # before a body is taken that there is no room for
            jobs.jobs_room_check(caller_of(request), more=1)

    def create(self, request: Request) -> Response:
        data: Any = request.data  # a QueryDict or, by our parser, a dict
        sent = request.query_params.dict() | dict(data.items())
        wishes = JobOptionsSerializer(data={name: sent[name] for name in DECODING_OPTIONS if name in sent})
        wishes.is_valid(raise_exception=True)
        told = JobSenderSerializer(data={name: sent[name] for name in ("user", "code_page") if name in sent})
        told.is_valid(raise_exception=True)
        end_user = end_user_of(request, told.validated_data)
        photos = _sent_photos(data, told.validated_data.get("code_page"))
        job, headers = create_once(
            request,
            lambda note: jobs.job_create(
                photos,
                owner=owner_of(request, end_user),
                caller=caller_of(request),
                options=wishes.validated_data,
                on_created=note,
            ),
            options=wishes.validated_data
            | {"names": [photo.name for photo in photos]}
            | ({"user": end_user} if end_user else {}),
            content=lambda: (photo.read() for photo in photos),
        )
        answer = self.get_serializer(self.get_queryset().get(pk=job.pk)).data
        return Response(
            answer, status.HTTP_202_ACCEPTED, headers={"Location": answer["links"]["self"], **headers}
        )

    def destroy(self, request: Request, pk: str) -> Response:
        jobs.job_cancel(self.get_object())
        return Response(status=status.HTTP_204_NO_CONTENT)

    @action(detail=True)
    def results(self, request: Request, pk: str) -> StreamingHttpResponse:
        job = self.get_object()
        wanted = request.query_params.get("format", "jsonl")
        if wanted not in FORMATS:
            raise ValidationError({"format": [f"There is no {wanted!r}; use one of: {', '.join(FORMATS)}."]})
        results = FORMATS[wanted]
        mark = [BOM] if wanted == "csv" and request.query_params.get("bom") == "1" else []
        response = StreamingHttpResponse(chain(mark, results.write(job)), content_type=results.media_type)
        response["Content-Disposition"] = (
            f'attachment; filename="captions-{str(job.pk)[:8]}.{results.suffix}"'
        )
        response["Cache-Control"] = "private, no-cache"
        return response


def _sent_photos(data: Any, code_page: str | None) -> list[SentPhoto]:
    """Returns the photos of a request, from `archive` or from one or more `image`. Raises `InvalidArchive`."""
    is_form = isinstance(data, QueryDict)
    archives: Any = data.getlist("archive") if is_form else list(data.values())
    images: Any = data.getlist("image") if is_form else []
    if bool(archives) == bool(images) or len(archives) > 1:
        message = (
            "Send photos either as one ZIP in `archive` (or as the body), or as one or more `image` files."
        )
        raise ValidationError({"archive": [message]})
    if not all(isinstance(upload, UploadedFile) for upload in [*archives, *images]):
        message = (
            "This part of the form has no file name, so it is text. Send it as a file:"
            ' `curl -F archive=@photos.zip`, or `filename="photos.zip"` in its Content-Disposition.'
        )
        raise ValidationError({"archive" if archives else "image": [message]})
    return photos_sent(archives[0] if archives else None, images, code_page)
