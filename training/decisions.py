"""What follows from a verdict: the gate's, which promotes as the policy says, or a reviewer's, which counts instead."""

from __future__ import annotations

import logging

from django.conf import settings
from django.contrib.auth.models import User
from django.utils import timezone

from models_registry import promotions
from models_registry.exceptions import RegistryError
from models_registry.models import Alias, ModelVersion, Promotion
from training.exceptions import RunRefused
from training.models import TrainingRun

logger = logging.getLogger(__name__)

_Status, _Verdict = TrainingRun.Status, TrainingRun.Verdict


def run_promote(
    run: TrainingRun, *, cause: Promotion.Cause = Promotion.Cause.RUN, because: str = "Passed the gate"
) -> None:
    """Make a candidate that passed the gate, or that people's blind votes prefer, what the policy says.

    Once for each cause: people may have taken it back since.

    One that was judged against another champion is left alone.
    """
    if settings.TRAINING_PROMOTE_TO == "nothing" or run.candidate is None:
        return
    alias = Alias.Name(settings.TRAINING_PROMOTE_TO)
    log = Promotion.objects.filter(alias=alias, version=run.candidate, cause=cause, training_run=run.pk)
    if not log.exists():
        if (champion := promotions.champion_get()) != run.champion:
            logger.warning("%s was judged against %s; now %s serves.", run, run.champion, champion)
            return
        promotions.version_promote(
            run.candidate,
            alias=alias,
            reason=f"{because} in {run}: {run.report.get('reason', '')}",
            report=run.report,
            expected=run.champion,
            cause=cause,
            training_run=run.pk,
        )
    run.promoted_to = alias.value


def run_overrule(run: TrainingRun, verdict: str, *, reason: str, by: User, despite_harm: bool = False) -> str:
    """Let a reviewer's verdict count instead of the gate's; returns what became of the candidate.

    "passed" promotes as the policy says, "rejected" takes back what serves or is tried. What serves changes
    first, which asks the store and takes its time; a decision that is cut short there is simply made again.

    A candidate that was proven to be worse passes only with `despite_harm`: whoever overrules that has to say so.

    Raises `RunRefused` without a reason, for a run without a candidate, for a verdict that stands already, for a
    candidate that was judged against another champion than serves now, and for what the registry refuses.
    """
    if verdict not in (_Verdict.PASSED, _Verdict.REJECTED):
        raise RunRefused(f"A reviewer decides “passed” or “rejected”, not “{verdict}”.")
    run.refresh_from_db()
    if run.status != _Status.FINISHED or run.candidate is None:
        raise RunRefused("Only a finished run with a candidate can be decided on.")
    if run.final_verdict == verdict:
        raise RunRefused(f"That is the verdict already: {verdict}.")
    harmful = verdict == _Verdict.PASSED and run.is_harmful
    if harmful and not despite_harm:
        raise RunRefused(
            f"It was proven to be worse. {run.report.get('reason', '')} Say that it is to pass all the same."
        )
    try:
        reason = promotions.reason_require(reason)
        reason_logged = f"{reason} (overruling {'proven harm' if harmful else 'the gate'} in {run})"
        promoted_to = ""
        if verdict == _Verdict.PASSED:
            promoted_to, told = _candidate_promote(run, run.candidate, reason_logged, by)
        elif promotions.champion_get() == run.candidate:
            previous = promotions.champion_rollback(reason=reason_logged, by=by, expected=run.candidate)
            told = f"{previous} is the champion again."
        elif promotions.challenger_clear(reason=reason_logged, by=by, only=run.candidate):
            told = f"{run.candidate} is no challenger any more."
        else:
            told = f"{run.candidate} does not serve."
    except RegistryError as error:
        raise RunRefused(str(error)) from error
    decided = TrainingRun.objects.filter(pk=run.pk, overruled_at=run.overruled_at).update(
        overruled_by=by,
        overruled_at=timezone.now(),
        overruled_to=verdict,
        overruled_reason=reason,
        promoted_to=promoted_to,
    )
    if not decided:
        raise RunRefused("Somebody else decided on this run just now; look again at what serves.")
    return told


def run_overrule_moves(run: TrainingRun, verdict: str) -> bool:
    """Whether a reviewer's verdict would change what serves or is tried."""
    standing = {alias for alias, version in promotions.aliases_get().items() if version == run.candidate}
    if verdict == _Verdict.REJECTED:
        return bool(standing)
    policy = settings.TRAINING_PROMOTE_TO
    return policy != "nothing" and not standing & {Alias.Name.CHAMPION, policy}


def _candidate_promote(run: TrainingRun, candidate: ModelVersion, reason: str, by: User) -> tuple[str, str]:
    """What it was promoted to, and that in words."""
    if not run_overrule_moves(run, _Verdict.PASSED):
        return run.promoted_to, f"What serves stays: TRAINING_PROMOTE_TO is {settings.TRAINING_PROMOTE_TO}."
    if (champion := promotions.champion_get()) != run.champion:
        raise RunRefused(
            f"{candidate} was compared with {run.champion}, and since then {champion} has become the champion. "
            "Train again to compare them, or promote it in the registry, on the version's own page."
        )
    alias = Alias.Name(settings.TRAINING_PROMOTE_TO)
    promotions.version_promote(
        candidate, alias=alias, reason=reason, by=by, report=run.report, expected=run.champion
    )
    return alias.value, f"{candidate} is the {alias.value}."
