"""The versions of the model for everybody: what each learned, how it did, when it served, and what it says now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.conf import settings
from django.contrib.auth.decorators import user_passes_test
from django.db.models import Count
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.safestring import mark_safe
from django.views.decorators.http import require_safe

from captioner.http.owner import owner_of
from captioner.models import Caption, CaptionQuerySet, FeedbackUse
from captioner.review.decisions import may_review
from models_registry import promotions
from models_registry.admin import may_promote
from models_registry.models import Alias, ModelVersion, Promotion
from models_registry.versions import versions_numbered
from training import blind
from training.judging.charts import interval_chart
from training.models import Comparison, TrainingRun

SHOWN = 30  # versions, the newest
EXAMPLES = 6  # photos, before and after


@dataclass
class Story:
    """One version as people read of it."""

    version: ModelVersion
    number: int
    run: TrainingRun | None = None
    told: str = ""
    judged: str = ""
    times: list[tuple[datetime, datetime | None]] = field(default_factory=list)  # when it served
    is_champion: bool = False
    is_challenger: bool = False
    taught_by_you: int = 0


@user_passes_test(lambda user: settings.ALLOW_ANONYMOUS or user.is_authenticated)
@require_safe
def versions(request: HttpRequest) -> HttpResponse:
    """All versions in plain words, a curve of their gains, and captions before and after of photos one may see."""
    numbers, stories = versions_numbered(), []
    own = Caption.objects.owned_by(owner_of(request))
    aliases = promotions.aliases_get()
    champion, challenger = aliases.get(Alias.Name.CHAMPION), aliases.get(Alias.Name.CHALLENGER)
    times = _times_served()
    taught = FeedbackUse.objects.filter(feedback__caption__in=own, role=FeedbackUse.Role.TAUGHT).order_by()
    by_you = dict(taught.values_list("version").annotate(Count("pk")))
    shown = list(ModelVersion.objects.order_by("-created_at", "-pk")[:SHOWN])
    finished = TrainingRun.objects.filter(candidate__in=shown).order_by("pk")
    runs = {run.candidate_id: run for run in finished}
    for version in shown:
        run = runs.get(version.pk)
        story = Story(version, numbers[version.pk], run)
        story.told, story.judged = _origin_told(version, run, numbers), _judged(run, numbers)
        story.times = times.get(version.pk, [])
        story.is_champion, story.is_challenger = version == champion, version == challenger
        story.taught_by_you = by_you.get(version.pk, 0)
        stories.append(story)
    gains = {
        f"version {story.number}": (gain["mean"], gain["lower"], gain["upper"])
        for story in reversed(stories)
        if story.run is not None and (gain := story.run.report.get("holdout"))
    }
    chart = interval_chart(
        gains,
        title="How much closer each version came to what people wrote: "
        + "; ".join(
            f"{name} {mean:+.1f}, between {low:+.1f} and {high:+.1f}"
            for name, (mean, low, high) in gains.items()
        ),
        y_label="points closer to what people wrote than the version that served then",
    )
    unfinished = TrainingRun.objects.filter(status__in=TrainingRun.UNFINISHED).order_by("-status").first()
    previous = promotions.champion_previous() if request.user.is_staff else None
    context = {
        "stories": stories,
        "serving": next((story for story in stories if story.is_champion), None),
        "chart": mark_safe(chart),  # noqa: S308  drawn by us, names escaped
        "examples": _examples(request, own, [story for story in stories if story.run], numbers),
        "unfinished": unfinished,
        "may_promote": request.user.is_staff and may_promote(request),
        "may_train": request.user.is_staff and request.user.has_perm("training.change_trainingrun"),
        "previous": previous and numbers[previous.pk],
    }
    return render(request, "training/versions.html", context)


def _origin_told(version: ModelVersion, run: TrainingRun | None, numbers: Mapping[str, int]) -> str:
    """One sentence on where a version comes from."""
    facts = version.readable_facts
    base = facts and facts.lineage.base
    if facts is None:
        return "Its description cannot be read."
    if not base:
        return f"It was not taught here: {facts.origin.rstrip('.')}."
    counts: Mapping[str, Any] = (
        (run.counts if run else None) or (facts.lineage.data and facts.lineage.data.counts) or {}
    )
    corrections, authors = counts.get("train_corrections", 0), counts.get("authors", 0)
    learned = (
        f"It learned from {_many(corrections, 'correction')}"
        if corrections
        else "It learned from corrections"
    )
    people = f" by {_many(authors, 'person', 'people')}" if authors else ""
    return f"{learned}{people}, starting from {_named(base, numbers)}."


def _judged(run: TrainingRun | None, numbers: Mapping[str, int]) -> str:
    """One sentence on how it did on photos that no version ever learned from."""
    if run is None or not run.verdict:
        return ""
    if not (gain := run.report.get("holdout")):
        return "There was no photo kept aside to test it on."
    photos, before = _many(gain["groups"], "photo"), _named(run.champion_id or "", numbers)
    if gain["lower"] > 0:
        told = f"it came closer to what people wrote than {before}"
    elif gain["upper"] < 0:
        told = f"it was further from what people wrote than {before}"
    else:
        told = f"no difference from {before} is sure"
    measured = f"{gain['mean']:+.1f}, between {gain['lower']:+.1f} and {gain['upper']:+.1f} points"
    decided = {
        TrainingRun.Verdict.PASSED: "It was let through",
        TrainingRun.Verdict.REJECTED: "It was turned down",
        TrainingRun.Verdict.INSUFFICIENT: "That is too little to decide on",
    }[TrainingRun.Verdict(run.final_verdict)]
    if run.overruled_to:
        decided += " by a reviewer"
    elif run.final_verdict != run.verdict:
        decided += " by people's blind votes"
    return f"On {photos} kept aside {told}: {measured}. {decided}."


def _named(pk: str, numbers: Mapping[str, int]) -> str:
    return f"version {numbers[pk]}" if pk in numbers else "an unknown version"


def _many(count: int, one: str, more: str = "") -> str:
    return f"{count} {one if count == 1 else more or f'{one}s'}"


def _times_served() -> dict[str, list[tuple[datetime, datetime | None]]]:
    """Version -> when it served: from, and until if it does no more."""
    log = Promotion.objects.filter(alias=Alias.Name.CHAMPION).exclude(action=Promotion.Action.CLEAR)
    entries = list(log.order_by("created_at", "pk").values_list("version", "created_at"))
    times: dict[str, list[tuple[datetime, datetime | None]]] = {}
    for place, (version, since) in enumerate(entries):
        until = entries[place + 1][1] if place + 1 < len(entries) else None
        times.setdefault(version, []).append((since, until))
    return times


def _examples(
    request: HttpRequest, own: CaptionQuerySet, stories: list[Story], numbers: Mapping[str, int]
) -> dict[str, Any] | None:
    """Captions before and after of the newest version that has some of photos this person may see.

    Not while people vote blind on it: they tell which caption is whose.
    """
    for story in stories:
        run = story.run
        if run is None or not blind.votes_closed(run):
            continue
        differing = Comparison.objects.filter(run=run).select_related("photo").order_by("pk")
        mine = dict(
            own.filter(photo__in=differing.values("photo")).order_by("created_at").values_list("photo", "pk")
        )
        seen = differing if may_review(request.user) else differing.filter(photo__in=list(mine)[:500])
        rows = [
            {
                "comparison": each,
                "link": reverse("caption", args=[mine[each.photo_id]]) if each.photo_id in mine else "",
                "image": reverse("api:caption-photo", args=[mine[each.photo_id]])
                if each.photo_id in mine
                else reverse("held-out-photo", args=[each.photo_id]),
            }
            for each in seen[:EXAMPLES]
        ]
        if rows:
            return {"rows": rows, "number": story.number, "before": numbers.get(run.champion_id or "")}
    return None
