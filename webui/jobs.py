"""The pages of batch jobs: send many photos, watch the progress, download the captions."""

import uuid
from collections.abc import Mapping
from typing import cast

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from captioner.exceptions import InvalidArchive, Overloaded
from captioner.http.owner import caller_of, owner_of
from captioner.http.problems import Problem, problem_from
from captioner.jobs import services
from captioner.jobs.uploads import photos_sent
from captioner.models import Job, JobPhoto, JobQuerySet
from webui.base import CANDIDATES, SeeOther, may_caption, upload_refusal

_SHOWN = 50  # jobs, and photos that failed
_LATEST_SHOWN = 4  # captions
_REFRESH_SECONDS = 3


@may_caption
@require_http_methods(["GET", "HEAD", "POST"])
def jobs(request: HttpRequest) -> HttpResponse:
    """The form, and the person's jobs. Photos sent with the form, or one ZIP of them, become a job."""
    if request.method != "POST":
        return _jobs(request)
    uploads = request.FILES.getlist("photos")
    if not uploads:
        return _jobs(request, "Choose a ZIP or some photos first.", status=400)
    if refusal := upload_refusal(request):
        return _jobs(request, refusal.detail, refusal.status, refusal.headers)
    archives = [upload for upload in uploads if str(upload.name).lower().endswith(".zip")]
    try:
        if archives and len(uploads) > 1:
            raise InvalidArchive("Send one ZIP alone, or photos.", reason="too_many")
        photos = photos_sent(archives[0], []) if archives else photos_sent(None, uploads)
        job = services.job_create(
            photos,
            owner=owner_of(request),
            caller=caller_of(request),
            options={"num_captions": CANDIDATES},
        )
    except (InvalidArchive, Overloaded) as error:
        refused = cast(Problem, problem_from(error))
        return _jobs(request, refused.detail, refused.status, refused.headers)
    return SeeOther(reverse("job", args=[job.pk]))


def _jobs(
    request: HttpRequest, problem: str = "", status: int = 200, headers: Mapping[str, str] | None = None
) -> HttpResponse:
    context = {
        "jobs": _own(request)[:_SHOWN],
        "problem": problem,
        "max_photos": settings.JOB_MAX_PHOTOS,
        "max_megabytes": settings.JOB_MAX_MEGABYTES,
        "max_files": settings.DATA_UPLOAD_MAX_NUMBER_FILES,
    }
    response = render(request, "webui/jobs.html", context, status=status)
    for name, value in (headers or {}).items():
        response[name] = value
    return response


@may_caption
@require_safe
def job(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """One job with its progress; the page reloads itself until the job is over."""
    shown = get_object_or_404(_own(request), pk=pk)
    failures = shown.photos.filter(state=JobPhoto.State.FAILED).order_by("index")
    captioned = shown.photos.filter(caption__isnull=False, caption__deleted_at=None).order_by("-index")
    latest = captioned.select_related("caption__photo", "caption__feedback", "caption__recalled")[
        :_LATEST_SHOWN
    ]
    context = {
        "job": shown,
        "done": shown.photo_count - shown.photos.pending().count(),
        "failures": failures[:_SHOWN],
        "refresh": None if shown.is_over else _REFRESH_SECONDS,
        "latest": [photo.caption for photo in latest],
    }
    return render(request, "webui/job.html", context)


@may_caption
@require_POST
def job_cancel(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    shown = get_object_or_404(_own(request), pk=pk)
    services.job_cancel(shown)
    messages.success(request, "No more photos of this job are captioned.")
    return SeeOther(reverse("job", args=[pk]))


@may_caption
@require_http_methods(["GET", "HEAD", "POST"])
def job_delete(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Ask first, then delete."""
    shown = get_object_or_404(_own(request), pk=pk)
    if request.method != "POST":
        return render(request, "webui/job_delete.html", {"job": shown})
    services.job_delete(shown)
    messages.success(request, "The job was deleted.")
    return SeeOther(reverse("jobs"))


def _own(request: HttpRequest) -> JobQuerySet:
    own = Job.objects.owned_by(owner_of(request)).exclude(status=Job.Status.RECEIVING)
    return own.with_progress()
