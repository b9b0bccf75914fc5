"""The first page, the form that photos are sent with, and the way from the demonstration model to a real one.

Both work without JavaScript.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.core.files.base import ContentFile, File
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from captioner.captions.captions import caption_create, parameters_from
from captioner.exceptions import (
    CaptionerError,
    ClientGone,
    DeadlineExceeded,
    ImportRefused,
    InvalidArchive,
    ModelUnavailable,
    Overloaded,
    StorageUnavailable,
)
from captioner.http.client import client_gone
from captioner.http.owner import caller_of, owner_of
from captioner.http.problems import Problem, no_error_logged, problem_from
from captioner.importing.known import KNOWN_MODELS
from captioner.importing.services import demonstration_serves, import_request, may_import
from captioner.intake.limits import MAX_BYTES
from captioner.jobs.names import name_shown
from captioner.jobs.services import job_create, waiting_bytes_most
from captioner.jobs.uploads import archive_title, is_archive, photos_of
from captioner.jobs.worker import job_begin
from captioner.models import Caption, ModelImport
from captioner.serving.process import serving
from webui.base import CANDIDATES, SeeOther, may_caption, own_captions, upload_refusal

_LATEST_SHOWN = 4
_IMPORTS_SHOWN = 5
_MODEL_RETRY_SECONDS = 5
# For whoever has no photo at hand: name, what it shows and whose it is. static/samples/CREDITS.md says where from.
SAMPLES = (
    ("hiker", "A hiker in the mountains", "“Trekkin!” by Pierce Martin/Zach Dischner, CC BY 2.0"),
    ("market", "A fruit stall", "“Colors and vitamins!” by Julien Lehuen, CC BY 2.0"),
    ("truck", "A truck in a street", "“Mack Midliner” by Jason Lawrence, CC BY 2.0"),
    (
        "panels",
        "Solar panels",
        "“Craters of the Moon solar array” by NPS Climate Change Response, Public Domain",
    ),
)


@may_caption
@require_http_methods(["GET", "HEAD", "POST"])
def home(request: HttpRequest) -> HttpResponse:
    """The form. A photo sent with it leads to its caption; several, ZIPs, or one that has to wait, to their job."""
    if request.method != "POST":
        try:
            serving.engine()
        except ModelUnavailable as error:
            return _model_unavailable(request, error)
        return _home(request)
    uploads: list[Any] = request.FILES.getlist("image") or _samples(request.POST.get("sample", ""))
    if not uploads:
        return _home(request, ["Choose at least one photo first."], status=400)
    if refusal := upload_refusal(request):
        return _home(request, [refusal.detail], status=refusal.status, headers=refusal.headers)
    is_one = len(uploads) == 1 and not is_archive(uploads[0])
    if is_one and (answer := _one(request, uploads[0])):
        return answer
    try:
        job = job_create(
            photos_of(uploads),
            owner=owner_of(request),
            caller=caller_of(request),
            options={"num_captions": CANDIDATES},
            name=archive_title(uploads[0].name) if len(uploads) == 1 and not is_one else "",
            enqueue=is_one,
        )
    except (InvalidArchive, Overloaded, StorageUnavailable) as error:
        refused = cast(Problem, problem_from(error))
        return _home(request, [refused.detail], status=refused.status, headers=refused.headers)
    if not is_one:
        job_begin(job, is_abandoned=lambda: client_gone(request))
    return SeeOther(reverse("job", args=[job.pk]))


def _one(request: HttpRequest, upload: "File[bytes]") -> HttpResponse | None:
    """The answer to a single photo; None where the model has no time for it now."""
    name = name_shown(upload.name or "photo")
    try:
        caption = caption_create(
            upload.read(MAX_BYTES + 1),  # one byte more than allowed is enough to be refused as too large
            owner=owner_of(request),
            source=Caption.Source.WEB,
            file_name=name,
            parameters=parameters_from(serving.engine().default_parameters, num_captions=CANDIDATES),
            is_abandoned=lambda: client_gone(request),
        )
    except (Overloaded, DeadlineExceeded):
        return None
    except ClientGone:
        return HttpResponse(status=400)  # for the server's log: nobody is left to read it
    except ModelUnavailable as error:
        return _model_unavailable(request, error)
    except CaptionerError as error:
        problem = cast(Problem, problem_from(error))
        return _home(request, [f"{name}: {error}"], status=problem.status, headers=problem.headers)
    return SeeOther(reverse("caption", args=[caption.pk]))


def _samples(wish: str) -> "list[ContentFile[bytes]]":
    """The sample photo of that name, as if it had been sent."""
    folder = settings.BASE_DIR / "static" / "samples"
    return [
        ContentFile((folder / f"{name}.webp").read_bytes(), f"{name}.webp")
        for name, *_ in SAMPLES
        if name == wish
    ]


def _home(
    request: HttpRequest,
    problems: Sequence[str] = (),
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> HttpResponse:
    context = {
        "problems": problems,
        "samples": SAMPLES,
        "busy": status == 429,
        "latest": own_captions(request)[:_LATEST_SHOWN],
        **import_state(),
        "max_photos": settings.JOB_MAX_PHOTOS,
        "max_files": settings.DATA_UPLOAD_MAX_NUMBER_FILES,
        "max_bytes": MAX_BYTES,
        "max_archive_bytes": settings.JOB_MAX_MEGABYTES * 2**20,
        "max_all_bytes": waiting_bytes_most(),
    }
    response = render(request, "webui/home.html", context, status=status)
    for name, value in (headers or {}).items():
        response[name] = value
    return response


def _model_unavailable(request: HttpRequest, error: ModelUnavailable) -> HttpResponse:
    context = {"reason": str(error), "retry_after": _MODEL_RETRY_SECONDS}
    response = render(request, "webui/unavailable.html", context, status=503)
    response["Retry-After"] = str(_MODEL_RETRY_SECONDS)
    no_error_logged(response)
    return response


@may_caption
@require_http_methods(["GET", "HEAD", "POST"])
def real_model(request: HttpRequest) -> HttpResponse:
    """The table; whoever may change what serves has buttons, which ask for an import."""
    problem = ""
    if request.method == "POST":
        if not may_import(request.user):
            raise PermissionDenied
        source = request.POST.get("source", "").strip()
        licence = next(
            (known.licence for known in KNOWN_MODELS if known.hub_id == source), "see the model card"
        )
        try:
            wanted = import_request(
                source,
                request.POST.get("revision", "").strip()[:100],
                licence=licence,
                by=cast(User, request.user),
            )
            messages.success(request, f"{wanted} is being fetched. It serves once it was tried.")
            return SeeOther(reverse("real-model"))
        except ImportRefused as error:
            problem = str(error)
    context = {
        **import_state(),
        "known": KNOWN_MODELS,
        "may_import": may_import(request.user),
        "imports": ModelImport.objects.select_related("version")[:_IMPORTS_SHOWN],
        "problem": problem,
    }
    return render(request, "webui/real_model.html", context, status=400 if problem else 200)


def import_state() -> dict[str, Any]:
    """What a page says of the model that serves: whether it is the demonstration, and what is on its way."""
    wanted = ModelImport.objects.filter(status__in=ModelImport.UNFINISHED).first()
    return {"is_demonstration": demonstration_serves(), "wanted": wanted}
