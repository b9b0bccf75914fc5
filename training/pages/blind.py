"""What reviewers are asked without knowing: which of two captions is better, and what a held-out photo shows."""

import secrets
from typing import cast

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import FileResponse, Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from captioner.captions.photos import photo_open
from captioner.models import IDEAL_CAPTION_MAX_LENGTH
from captioner.review.decisions import may_review
from training import blind
from training.exceptions import RunRefused
from training.judging.votes import MOST_VOTES
from training.models import HeldOutPhoto, TrainingRun

_LOOKED_AT = 10  # runs, the latest


def _reviewer(request: HttpRequest, permission: str) -> User:
    """Whoever reviews, or has that permission. Raises `PermissionDenied`."""
    user = cast(User, request.user)
    if not (may_review(user) or user.has_perm(permission)):
        raise PermissionDenied
    return user


@login_required
@never_cache
@require_safe
def votes(request: HttpRequest) -> HttpResponse:
    """Leads to the candidate that is voted on, or says that there is none."""
    _reviewer(request, "training.change_trainingrun")
    finished = TrainingRun.objects.filter(
        status=TrainingRun.Status.FINISHED, candidate__isnull=False, votes_verdict=""
    )
    for run in finished.select_related("candidate", "champion")[:_LOOKED_AT]:
        if not blind.votes_closed(run):
            return redirect("blind-vote", run.pk)
    return render(request, "training/vote.html", {"closed": "No version waits to be voted on."})


@login_required
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def vote(request: HttpRequest, pk: int) -> HttpResponse:
    """A photo and two captions, of which a reviewer says which is better; which is whose is shown nowhere."""
    voter = _reviewer(request, "training.change_trainingrun")
    run = get_object_or_404(TrainingRun, pk=pk)
    if request.method == "POST":
        shown = get_object_or_404(run.comparisons, pk=number_of(request.POST.get("comparison", "")))
        choice = request.POST.get("choice", "")
        if choice not in {"first", "second"}:
            raise Http404("The first caption is better, or the second.")
        is_first = blind.candidate_is_first(shown, voter, request.POST.get("lot", ""))
        try:
            result = blind.vote_cast(shown, prefers_candidate=(choice == "first") == is_first, by=voter)
        except RunRefused as error:
            messages.warning(request, str(error))
        else:
            if result.verdict is not None:
                messages.success(request, f"That vote decided: {result}.")
                if voter.is_staff and voter.has_perm("training.view_trainingrun"):
                    return redirect("admin:training_trainingrun_change", pk)
        return redirect("blind-vote", pk)
    closed = blind.votes_closed(run)
    shown_next = None if closed else blind.comparison_next(run)
    context = {
        "closed": closed,
        "run": run,
        "votes": blind.votes_result(run).votes,
        "most_votes": MOST_VOTES,
    }
    if shown_next is not None:
        lot = secrets.token_hex(8)
        pair = (shown_next.candidate, shown_next.champion)
        context |= {
            "comparison": shown_next,
            "photo": shown_next.photo,
            "lot": lot,
            "captions": pair if blind.candidate_is_first(shown_next, voter, lot) else pair[::-1],
        }
    return render(request, "training/vote.html", context)


@login_required
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def write(request: HttpRequest) -> HttpResponse:
    """A held-out photo alone, and a field for what the reviewer sees."""
    writer, problem, held_out = _reviewer(request, "training.add_blindcaption"), "", None
    if request.method == "POST":
        held_out = get_object_or_404(
            HeldOutPhoto.objects.select_related("photo"), pk=number_of(request.POST.get("photo", ""))
        )
        try:
            blind.blind_caption_write(held_out, request.POST.get("text", ""), by=writer)
            messages.success(request, "Saved. Here is the next one.")
            return redirect("blind-captions")
        except RunRefused as error:
            problem = str(error)
    held_out = held_out or blind.held_out_next(writer)
    context = {
        "held_out": held_out,
        "photo": held_out and held_out.photo,
        "problem": problem,
        "text": request.POST.get("text", ""),
        "most": IDEAL_CAPTION_MAX_LENGTH,
    }
    return render(request, "training/write.html", context, status=400 if problem else 200)


@login_required
@require_safe
def photo(request: HttpRequest, pk: int) -> FileResponse:
    """A held-out photo, for whoever votes or writes."""
    _reviewer(request, "training.add_blindcaption")
    held_out = get_object_or_404(HeldOutPhoto.objects.select_related("photo"), pk=pk)
    try:
        response = FileResponse(photo_open(held_out.photo), content_type="image/jpeg")
    except FileNotFoundError:
        raise Http404("The file of this photo is missing in the photo storage.") from None
    response["Cache-Control"] = "private, max-age=3600"
    return response


def number_of(text: str) -> int:
    """The number of a row as a form sends it; 0, which no row has, for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0
