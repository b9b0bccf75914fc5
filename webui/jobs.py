"""The pages of jobs: photos that were sent together, how far they are, and their captions."""

import uuid

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from captioner.http.owner import owner_of
from captioner.jobs import services
from captioner.jobs.names import name_shown
from captioner.models import JOB_NAME_MAX_LENGTH, Job, JobPhoto, JobQuerySet
from webui.base import SeeOther, may_caption

_SHOWN = 50  # jobs, and photos that failed
_CAPTIONS_SHOWN = 24
_REFRESH_SECONDS = 3


@may_caption
@require_safe
def jobs(request: HttpRequest) -> HttpResponse:
    """The person's jobs, the newest first."""
    return render(request, "webui/jobs.html", {"jobs": _own(request)[:_SHOWN]})


@may_caption
@require_safe
def job(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """One job with its progress; the page reloads itself until the job is over."""
    shown = get_object_or_404(_own(request), pk=pk)
    failures = shown.photos.filter(state=JobPhoto.State.FAILED).order_by("index")
    captioned = shown.photos.filter(caption__isnull=False, caption__deleted_at=None).order_by("index")
    detailed = captioned.select_related("caption__photo", "caption__feedback", "caption__recalled")
    context = {
        "job": shown,
        "done": shown.photo_count - shown.photos.pending().count(),
        "failures": failures[:_SHOWN],
        "refresh": None if shown.is_over else _REFRESH_SECONDS,
        "captions": [photo.caption for photo in detailed[:_CAPTIONS_SHOWN]],
        "name_length": JOB_NAME_MAX_LENGTH,
    }
    return render(request, "webui/job.html", context)


@may_caption
@require_POST
def job_rename(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    shown = get_object_or_404(_own(request), pk=pk)
    shown.name = name_shown(request.POST.get("name", ""))[:JOB_NAME_MAX_LENGTH].strip()
    shown.save(update_fields=["name"])
    return SeeOther(reverse("job", args=[pk]))


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
