"""What reviewers say without knowing: which of two captions is better, and what a held-out photo shows."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models import Exists, F, Max, OuterRef, QuerySet
from django.utils.crypto import salted_hmac

from captioner.models import IDEAL_CAPTION_MAX_LENGTH, Preference
from models_registry import promotions
from models_registry.exceptions import RegistryError
from models_registry.models import Promotion
from training.decisions import run_promote
from training.exceptions import RunRefused
from training.judging.votes import VotesResult, VotesVerdict, votes_asked, votes_judge
from training.models import BlindCaption, Comparison, HeldOutPhoto, TrainingRun

_Verdict = TrainingRun.Verdict


# --- Votes ---


def votes_closed(run: TrainingRun) -> str:
    """Why nobody can vote on the candidate of `run`, or an empty string."""
    if run.status != TrainingRun.Status.FINISHED or run.candidate is None:
        return "Only the candidate of a finished run is voted on."
    if run.votes_verdict:
        return f"The votes have decided: {run.votes_verdict}."
    if run.overruled_to or run.verdict == _Verdict.REJECTED:
        return f"The verdict on this candidate is {run.final_verdict}; votes would not change it."
    champion = promotions.champion_get()
    if champion == run.candidate:
        return "This candidate serves already."
    if champion != run.champion:
        return f"It was compared with {run.champion}, and since then {champion} has become the champion."
    if not run.comparisons.exclude(candidate=F("champion")).exists():
        return "Candidate and champion say the same of every held-out photo."
    return ""


def comparison_next(run: TrainingRun) -> Comparison | None:
    """A photo that nobody has voted on, by lot: the test counts photos, and a second vote on one tells nothing new."""
    votes = Preference.objects.filter(training_run=run.pk)
    return (
        run.comparisons.select_related("photo")
        .exclude(candidate=F("champion"))
        .exclude(photo__in=votes.values("photo"))
        .order_by("?")
        .first()
    )


def candidate_is_first(comparison: Comparison, voter: User, lot: str) -> bool:
    """Which caption stands first, drawn by `lot`, a text that the page sends back: nothing on it tells which it is."""
    drawn = salted_hmac("training.votes", f"{comparison.pk} {voter.pk} {lot}", algorithm="sha256").digest()
    return drawn[0] % 2 == 0


def vote_cast(comparison: Comparison, *, prefers_candidate: bool, by: User) -> VotesResult:
    """Keep a vote as a preference, and do what follows where it was the one that decides.

    A candidate for which the gate had too little evidence is promoted by votes as by the gate, as the policy says; what
    votes say is in the run's report. Raises `RunRefused` where there is nothing to vote on, or for a second vote.
    """
    run = TrainingRun.objects.select_related("candidate", "champion").get(pk=comparison.run_id)
    if closed := votes_closed(run):
        raise RunRefused(closed)
    candidate, champion = (comparison.candidate, run.candidate_id), (comparison.champion, run.champion_id)
    (preferred, preferred_version), (other, other_version) = (
        (candidate, champion) if prefers_candidate else (champion, candidate)
    )
    try:
        with transaction.atomic():
            if run.votes_look is None:
                # One after the other: first votes on two candidates may come at once.
                of_champion = TrainingRun.objects.select_for_update().filter(champion=run.champion)
                looks = dict(of_champion.order_by("pk").values_list("pk", "votes_look"))
                run.votes_look = looks[run.pk] or 1 + max(look or 0 for look in looks.values())
                TrainingRun.objects.filter(pk=run.pk).update(votes_look=run.votes_look)
            Preference.objects.create(
                kind=Preference.Kind.VOTE,
                photo_id=comparison.photo_id,
                voter=by,
                training_run=run.pk,
                preferred=preferred,
                other=other,
                preferred_version=preferred_version or "",
                other_version=other_version or "",
            )
    except IntegrityError:
        raise RunRefused("You have voted on this photo already.") from None
    result = votes_result(run)
    if result.verdict is not None:
        _votes_settle(run, result)
    return result


def votes_look(run: TrainingRun) -> int:
    """The how-manieth candidate that people vote on beside this champion the run's is, from 1."""
    if run.votes_look:
        return run.votes_look
    others = TrainingRun.objects.filter(champion=run.champion)
    return (others.aggregate(latest=Max("votes_look"))["latest"] or 0) + 1


def votes_result(run: TrainingRun) -> VotesResult:
    """What the first vote on each photo says: two people who look at one photo are no independent evidence."""
    first: dict[int, str] = {}
    votes = Preference.objects.filter(training_run=run.pk).order_by("pk")
    for photo, version in votes.values_list("photo", "preferred_version"):
        first.setdefault(photo, version)
    return votes_judge((version == run.candidate_id for version in first.values()), votes_look(run))


def _votes_settle(run: TrainingRun, result: VotesResult) -> None:
    """What serves changes first, as when a reviewer decides; a decision that is cut short is made by the next vote."""
    if result.verdict == VotesVerdict.PREFERRED and run.verdict == _Verdict.INSUFFICIENT:
        try:
            run_promote(run, cause=Promotion.Cause.VOTES, because=f"{result}, blind")
        except RegistryError as error:
            raise RunRefused(f"Your vote counts, but the candidate cannot be promoted: {error}") from error
    votes = {"votes": result.votes, "preferring": result.preferring, "asked": votes_asked(votes_look(run))}
    TrainingRun.objects.filter(pk=run.pk).update(
        votes_verdict=str(result.verdict), report=run.report | {"votes": votes}, promoted_to=run.promoted_to
    )


# --- Captions ---


def held_out_next(writer: User) -> HeldOutPhoto | None:
    """A held-out photo that `writer` never read a caption of, such that nobody wrote of before others."""
    return (
        _unread(writer)
        .exclude(photo__blind_captions__written_by=writer)
        .annotate(was_written=Exists(BlindCaption.objects.filter(photo=OuterRef("photo"))))
        .order_by("was_written", "?")
        .first()
    )


def _unread(writer: User) -> QuerySet[HeldOutPhoto]:
    """Held-out photos that `writer` did not have captioned, reviewed nothing of and did not vote on."""
    return (
        HeldOutPhoto.objects.select_related("photo")
        .exclude(photo__captions__user=writer)
        .exclude(photo__captions__feedback__reviewed_by=writer)
        .exclude(photo__preferences__voter=writer)
    )


def blind_caption_write(held_out: HeldOutPhoto, text: str, *, by: User) -> BlindCaption:
    """Keep what `by` sees on the photo; writing again replaces it. Raises `RunRefused` for no text or too much."""
    if not _unread(by).filter(pk=held_out.pk).exists():
        raise RunRefused("You have read captions of this photo; somebody who has not is to write of it.")
    text = " ".join(text.split())
    if not text or len(text) > IDEAL_CAPTION_MAX_LENGTH:
        raise RunRefused(f"Write what you see, in up to {IDEAL_CAPTION_MAX_LENGTH} characters.")
    written, _ = BlindCaption.objects.update_or_create(
        photo_id=held_out.pk, written_by=by, defaults={"text": text}
    )
    return written
