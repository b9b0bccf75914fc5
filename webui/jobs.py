"""The pages of jobs: photos that were sent together, how far they are, and their captions.

The script of the first page sends them a photo a request, so that each can be sent again or left out.
"""

import uuid

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from captioner.exceptions import CaptionerError
from captioner.http.client import client_gone
from captioner.http.owner import caller_of, owner_of
from captioner.http.problems import Problem, problem_from
from captioner.jobs import services
from captioner.jobs.names import name_shown
from captioner.jobs.receiving import MAX_PLACES, job_photos_receive, job_receive, job_received
from captioner.jobs.worker import job_begin
from captioner.models import JOB_NAME_MAX_LENGTH, Job, JobPhoto, JobQuerySet
from webui.base import CANDIDATES, SeeOther, may_caption, upload_refusal

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


@may_caption
@require_POST
def upload_begin(request: HttpRequest) -> HttpResponse:
    """Begin a job: answers with the address that takes its photos."""
    if refusal := upload_refusal(request):
        return refusal.response()
    try:
        job = job_receive(
            owner=owner_of(request), caller=caller_of(request), options={"num_captions": CANDIDATES}
        )
    except CaptionerError as error:
        return _refused(error)
    return JsonResponse({"job": reverse("upload", args=[job.pk])}, status=201)


@may_caption
@require_POST
def upload_photo(request: HttpRequest, pk: uuid.UUID, place: int) -> HttpResponse:
    """Take a photo, or a ZIP of them, for its place in the job."""
    job = _receiving(request, pk)
    upload = request.FILES.get("image")
    if upload is None or place >= MAX_PLACES:
        return Problem.invalid_fields([("image", "Send a photo for a place in what was chosen.")]).response()
    try:
        count = job_photos_receive(job, place, upload)
    except CaptionerError as error:
        return _refused(error)
    except Job.DoesNotExist:
        raise Http404("This upload is over.") from None
    return JsonResponse({"photos": count})


@may_caption
@require_POST
def upload_done(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Caption what came for `places`, which commas separate: answers with the address of the page that shows it."""
    job = _receiving(request, pk)
    try:
        job_received(
            job, {int(place) for place in request.POST.get("places", "").split(",") if place.isdecimal()}
        )
    except CaptionerError as error:
        return _refused(error)
    except Job.DoesNotExist:
        raise Http404("This upload is over.") from None
    job.refresh_from_db()
    job_begin(job, is_abandoned=lambda: client_gone(request))
    photos = list(job.photos.select_related("caption")[:2])
    if len(photos) == 1 and photos[0].caption:
        job.delete()  # a single caption has its own page
        return JsonResponse({"page": reverse("caption", args=[photos[0].caption.pk])})
    return JsonResponse({"page": reverse("job", args=[pk])})


@may_caption
@require_POST
def upload_cancel(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Forget what came so far."""
    _receiving(request, pk).delete()
    return HttpResponse(status=204)


def _receiving(request: HttpRequest, pk: uuid.UUID) -> Job:
    receiving = Job.objects.owned_by(owner_of(request)).filter(status=Job.Status.RECEIVING)
    return get_object_or_404(receiving, pk=pk)


def _refused(error: CaptionerError) -> HttpResponse:
    problem = problem_from(error)
    if problem is None:
        raise error
    return problem.response()
