"""The first page, the form that photos are sent with, and the way from the demonstration model to a real one.

Both work without JavaScript.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast
from urllib.parse import urlencode

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.core.files.base import ContentFile, File
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from captioner.captions.captions import captions_create, parameters_from
from captioner.exceptions import CaptionerError, ClientGone, ImportRefused, ModelUnavailable
from captioner.http.client import client_gone
from captioner.http.owner import owner_of
from captioner.http.problems import no_error_logged, problem_from
from captioner.importing.known import KNOWN_MODELS
from captioner.importing.services import demonstration_serves, import_request, may_import
from captioner.intake.limits import MAX_BYTES
from captioner.jobs.names import name_shown
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
    """The form; photos sent with it are captioned, and the answer leads to their captions."""
    try:
        parameters = parameters_from(serving.engine().default_parameters, num_captions=CANDIDATES)
    except ModelUnavailable as error:
        return _model_unavailable(request, error)
    if request.method != "POST":
        return _home(request)
    uploads: Sequence[File[bytes]] = request.FILES.getlist("image") or _samples(
        request.POST.get("sample", "")
    )
    most = settings.UPLOAD_MAX_PHOTOS
    if not uploads:
        return _home(request, ["Choose at least one photo first."], status=400)
    if len(uploads) > most:
        told = f"You sent {len(uploads)} photos; at most {most} are captioned at a time."
        return _home(request, [told], status=400)
    if refusal := upload_refusal(request):
        return _home(request, [refusal.detail], status=refusal.status, headers=refusal.headers)
    names = [name_shown(upload.name or "photo") for upload in uploads]
    try:
        outcomes = captions_create(
            # One byte more than allowed is enough to be refused as too large.
            (upload.read(MAX_BYTES + 1) for upload in uploads),
            owner=owner_of(request),
            source=Caption.Source.WEB,
            file_names=names,
            parameters=parameters,
            is_abandoned=lambda: client_gone(request),
        )
    except ClientGone:
        return HttpResponse(status=400)  # for the server's log: nobody is left to read it
    captions = [outcome for outcome in outcomes if isinstance(outcome, Caption)]
    failures = [
        (name, outcome)
        for name, outcome in zip(names, outcomes, strict=True)
        if isinstance(outcome, CaptionerError)
    ]
    if not captions:
        return _all_failed(request, failures)
    for name, failure in failures:
        messages.error(request, f"{name}: {failure}")
    if len(captions) == 1:
        return SeeOther(reverse("caption", args=[captions[0].pk]))
    new = ",".join(str(caption.pk) for caption in captions)
    return SeeOther(f"{reverse('captions')}?{urlencode({'new': new}, safe=',')}")


def _all_failed(request: HttpRequest, failures: list[tuple[str, CaptionerError]]) -> HttpResponse:
    """The form again, with what was wrong with each photo; the gravest reason makes the status."""
    for _, error in failures:
        if isinstance(error, ModelUnavailable):
            return _model_unavailable(request, error)
    problems = [problem for _, error in failures if (problem := problem_from(error))]
    gravest = max(problems, key=lambda problem: problem.status)
    told = [f"{name}: {error}" for name, error in failures]
    return _home(request, told, status=gravest.status, headers=gravest.headers)


def _samples(wish: str) -> "list[File[bytes]]":
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
        "max_photos": settings.UPLOAD_MAX_PHOTOS,
        "max_megabytes": MAX_BYTES // 2**20,
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
