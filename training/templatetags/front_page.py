"""The front page of the admin before the records: what waits, what was learned, what serves, what is wrong."""

from datetime import timedelta
from typing import Any

from django import template
from django.template.context import Context
from django.utils import timezone
from django.utils.timesince import timesince

from captioner.models import Feedback
from captioner.review.decisions import may_review
from models_registry import processes, promotions
from models_registry.models import Alias
from models_registry.versions import versions_numbered
from training import services
from training.models import TrainingRun

register = template.Library()

_PICKED_UP_WITHIN = timedelta(minutes=5)
_FOLDED = "django_celery_beat"  # lists of a library, which nobody needs day by day


@register.inclusion_tag("admin/front_page.html", takes_context=True)
def front_page(context: Context) -> dict[str, Any]:
    """What is there for this person; each part only for whoever may do something about it."""
    user, numbers = context["request"].user, versions_numbered()
    may_look = user.has_perm("training.view_trainingrun")
    aliases = promotions.aliases_get()
    runs = TrainingRun.objects.select_related("candidate")
    unfinished = runs.filter(status__in=TrainingRun.UNFINISHED).order_by("-status").first()
    last = runs.exclude(status__in=TrainingRun.UNFINISHED).first()
    return {
        "request": context["request"],
        "csrf_token": context.get("csrf_token"),
        "may_review": may_review(user),
        "waiting": Feedback.objects.pending().count() if may_review(user) else 0,
        "may_look": may_look,
        "may_train": user.has_perm("training.change_trainingrun"),
        "unfinished": unfinished if may_look else None,
        "last": last if may_look else None,
        "last_told": run_told(last, numbers) if may_look and last else "",
        "new_corrections": services.feedback_new_count() if may_look else 0,
        "champion": numbers.get(aliases[Alias.Name.CHAMPION].pk) if Alias.Name.CHAMPION in aliases else None,
        "since": Alias.objects.filter(name=Alias.Name.CHAMPION).values_list("since", flat=True).first(),
        "challenger": numbers.get(aliases[Alias.Name.CHALLENGER].pk)
        if Alias.Name.CHALLENGER in aliases
        else None,
        "trouble": troubles(unfinished, last) if may_look else [],
    }


@register.filter
def without_library_lists(app_list: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [app for app in app_list if app["app_label"] != _FOLDED]


@register.filter
def library_lists(app_list: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [app for app in app_list if app["app_label"] == _FOLDED]


def run_told(run: TrainingRun, numbers: dict[str, int]) -> str:
    """What came of a run, in a sentence."""
    status, verdict = TrainingRun.Status, TrainingRun.Verdict
    made = f"made version {numbers[run.candidate_id]}" if run.candidate_id in numbers else "made a version"
    match run.status:
        case status.FINISHED if run.final_verdict == verdict.PASSED:
            became = {
                "champion": ", which was let through and served",
                "challenger": ", which was let through to a trial",
            }
            return f"It {made}{became.get(run.promoted_to, ', which was let through')}."
        case status.FINISHED if run.final_verdict == verdict.REJECTED:
            return f"It {made}, which was turned down."
        case status.FINISHED:
            return f"It {made}; there are too few photos kept aside to say whether it is better."
        case status.UNCHANGED:
            return "There was nothing new to learn."
        case status.UNLEARNED:
            return "Nothing was learned yet: no version came out that is surely better."
        case status.CANCELLED:
            return "It was cancelled."
        case status.QUARANTINED:
            return "It failed again and again, and waits for somebody to look."
    return "It failed."


def troubles(unfinished: TrainingRun | None, last: TrainingRun | None) -> list[str]:
    """What does not go on by itself, or should be known, in sentences."""
    told, now = [], timezone.now()
    if unfinished is not None and unfinished.is_stale:
        silent = timesince(unfinished.heartbeat_at or unfinished.created_at, now)
        told.append(
            f"The trainer has been silent for {silent}. Its run goes on as soon as a trainer is there again."
        )
    elif (
        unfinished is not None
        and unfinished.status == TrainingRun.Status.QUEUED
        and unfinished.created_at < now - _PICKED_UP_WITHIN
    ):
        waits = timesince(unfinished.created_at, now)
        told.append(f"A run has been waiting for {waits}, and no trainer takes it. Is one running?")
    if last is not None and last.status in {TrainingRun.Status.FAILED, TrainingRun.Status.QUARANTINED}:
        told.append(f"The last run failed: {last.error}")
    return [*told, *processes.alerts_current()]
