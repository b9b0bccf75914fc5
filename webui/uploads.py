"""What the form's script sends: a photo a request, so that each has its progress and can be sent again or left out."""

import uuid

from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.views.decorators.http import require_POST

from captioner.exceptions import CaptionerError
from captioner.http.client import client_gone
from captioner.http.owner import caller_of, owner_of
from captioner.http.problems import Problem, problem_from
from captioner.jobs.receiving import MAX_PLACES, job_photos_receive, job_receive, job_received
from captioner.jobs.worker import job_begin
from captioner.models import Job
from webui.base import CANDIDATES, may_caption, upload_refusal


@may_caption
@require_POST
def begin(request: HttpRequest) -> HttpResponse:
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
def photo(request: HttpRequest, pk: uuid.UUID, place: int) -> HttpResponse:
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
def done(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
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
def cancel(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
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
