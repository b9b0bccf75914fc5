"""Is the challenger as good as the champion? Read from the log; a challenger that surely is not is taken back."""

import logging
import math
import statistics
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from django.db import DatabaseError, IntegrityError, transaction
from django.db.models import Avg, Count, QuerySet, StdDev
from django.utils import timezone

from captioner.inference.types import Prediction
from captioner.models import Caption, ChallengerTrial, Feedback
from models_registry import services as registry
from models_registry.models import Alias, ModelVersion, Rollout

logger = logging.getLogger(__name__)

# "Surely" means this many standard errors: strict, because the log is looked at again and again.
_Z = 3.0
_MIN_FAILURES = 3
_LATENCY_SAMPLE = 200  # captions
# A champion is rated over longer than a challenger stands.
_RATINGS_WINDOW = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Record:
    """What the log says of one version. Times are in milliseconds, ratings from 1 to 10."""

    version: str
    captions: int = 0  # answered or made along
    failures: int = 0
    timed: int = 0
    median_ms: float | None = None
    ratings: int = 0
    mean_rating: float | None = None
    rating_deviation: float | None = None

    @property
    def error_rate(self) -> float:
        return self.failures / max(1, self.captions + self.failures)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two versions side by side, since the challenger became one."""

    since: datetime
    champion: Record
    challenger: Record

    @property
    def records(self) -> tuple[Record, Record]:
        return self.champion, self.challenger

    def to_dict(self) -> dict[str, object]:
        return asdict(self) | {"since": self.since.isoformat()}


def trial_record(caption: uuid.UUID, model_version: str, outcome: Prediction | Exception) -> None:
    """Keep what a challenger made, unseen, of the photo of `caption`."""
    if isinstance(outcome, Exception):
        _trial_save(caption, model_version, ChallengerTrial.Kind.SHADOW, error=_error_text(outcome))
        return
    text = outcome.candidates[0].caption if outcome.candidates else ""
    _trial_save(
        caption,
        model_version,
        ChallengerTrial.Kind.SHADOW,
        text=text,
        error="" if text else "It said nothing.",
        inference_ms=round(outcome.inference_seconds * 1000, 1),
    )


def trial_failed(caption: Caption, model_version: str, error: str) -> None:
    """Keep how a challenger failed the photo of `caption`, which the champion answered then."""
    _trial_save(caption.pk, model_version, ChallengerTrial.Kind.CANARY, error=error)


def challenger_compare() -> Comparison | None:
    """The challenger beside the champion; None while there is no challenger."""
    aliases = registry.aliases_get()
    since = registry.challenger_since()
    if since is None or set(aliases) != set(Alias.Name):
        return None
    champion, challenger = aliases[Alias.Name.CHAMPION], aliases[Alias.Name.CHALLENGER]
    return Comparison(
        since=since,
        champion=_record(champion, since, ratings_since=timezone.now() - _RATINGS_WINDOW),
        challenger=_record(challenger, since, ratings_since=since),
    )


def challenger_check() -> str | None:
    """Take the challenger back if it breaches a limit; returns why."""
    comparison = challenger_compare()
    if comparison is None:
        return None
    reason = next(_breaches(comparison, registry.rollout_get()), None)
    if reason is None:
        return None
    taken_back = registry.challenger_clear(
        reason=reason,
        report=comparison.to_dict(),
        only=registry.version_get(comparison.challenger.version),
    )
    if taken_back is not None:
        logger.error("The challenger %s was taken back: %s", taken_back, reason)
    return reason


def _trial_save(caption: uuid.UUID, model_version: str, kind: ChallengerTrial.Kind, **fields: object) -> None:
    try:
        with transaction.atomic():
            ChallengerTrial.objects.create(
                caption_id=caption, model_version=model_version, kind=kind, **fields
            )
    except IntegrityError:
        logger.info("The caption %s was deleted before the challenger was done with its photo.", caption)
    except DatabaseError as error:  # the caption stands, and it is only about a trial
        logger.warning("What the challenger made of a photo is not logged: %s", error)


def _record(version: ModelVersion, since: datetime, ratings_since: datetime) -> Record:
    answered = Caption.objects.filter(model_version=version.pk, created_at__gte=since)
    trials = ChallengerTrial.objects.filter(model_version=version.pk, created_at__gte=since)
    made, failures = trials.filter(error=""), trials.exclude(error="").count()
    newest = "-created_at"
    times = _times(answered.order_by(newest)[:_LATENCY_SAMPLE], made.order_by(newest)[:_LATENCY_SAMPLE])
    rated = Feedback.objects.filter(
        caption__model_version=version.pk, caption__created_at__gte=ratings_since, rating__isnull=False
    ).exclude(status=Feedback.Status.REJECTED)
    ratings = rated.aggregate(count=Count("pk"), mean=Avg("rating"), deviation=StdDev("rating", sample=True))
    return Record(
        version=version.pk,
        captions=answered.count() + made.count(),
        failures=failures,
        timed=len(times),
        median_ms=statistics.median(times) if times else None,
        ratings=ratings["count"],
        mean_rating=ratings["mean"],
        rating_deviation=ratings["deviation"],
    )


def _times(answered: QuerySet[Caption], made: QuerySet[ChallengerTrial]) -> list[float]:
    """Milliseconds of inference, answered and made along."""
    times = [timings.get("inference") for timings in answered.values_list("timings_ms", flat=True)]
    return [time for time in (*times, *made.values_list("inference_ms", flat=True)) if time is not None]


def _breaches(comparison: Comparison, limits: Rollout) -> Iterator[str]:
    champion, challenger = comparison.champion, comparison.challenger
    total = challenger.captions + challenger.failures
    if challenger.failures >= _MIN_FAILURES and _rate_low(challenger.failures, total) > limits.max_error_rate:
        yield f"It failed {challenger.failures} of {total} photos; at most {limits.max_error_rate:.1%} may fail."
    if (
        champion.median_ms
        and challenger.median_ms
        and min(champion.timed, challenger.timed) >= limits.min_captions
        and challenger.median_ms > limits.max_latency_ratio * champion.median_ms
    ):
        yield (
            f"It takes {challenger.median_ms:.0f} ms where the champion takes {champion.median_ms:.0f}; "
            f"at most {limits.max_latency_ratio:g} times as long is allowed."
        )
    if min(champion.ratings, challenger.ratings) >= limits.min_ratings:
        drop, error = _rating_drop(champion, challenger)
        if drop - _Z * error > 0 and drop > limits.max_rating_drop:
            yield (
                f"It is rated {challenger.mean_rating:.1f} where the champion is rated {champion.mean_rating:.1f}; "
                f"at most {limits.max_rating_drop:g} less is allowed."
            )


def _rate_low(failures: int, total: int) -> float:
    """The lower end of Wilson's score interval (E. B. Wilson, 1927) for a rate."""
    rate, z2 = failures / total, _Z * _Z
    spread = _Z * math.sqrt(rate * (1 - rate) / total + z2 / (4 * total * total))
    return (rate + z2 / (2 * total) - spread) / (1 + z2 / total)


def _rating_drop(champion: Record, challenger: Record) -> tuple[float, float]:
    """How much worse the challenger is rated, and the standard error of that (Welch)."""
    variances = [(each.rating_deviation or 0.0) ** 2 / each.ratings for each in (champion, challenger)]
    return (champion.mean_rating or 0.0) - (challenger.mean_rating or 0.0), math.sqrt(sum(variances))


def _error_text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
