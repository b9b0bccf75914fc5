"""Is the challenger as good as the champion? Read from the log; a challenger that surely is not is taken back."""

import logging
import math
import statistics
import uuid
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from django.db import DatabaseError, IntegrityError, transaction
from django.db.models import Avg, Count, QuerySet, StdDev
from django.utils import timezone

from captioner.inference.types import Prediction
from captioner.models import Caption, ChallengerTrial, Feedback
from captioner.ops import metrics
from models_registry import promotions, versions
from models_registry.models import Alias, ModelVersion, Promotion, Rollout

logger = logging.getLogger(__name__)

# "Surely" means this many standard errors: strict, because the log is looked at again and again.
_Z = 3.0
_MIN_FAILURES = 3
_TIMED_CAPTIONS = 500  # of each version, the newest
_LIKE_BATCHES = 10  # of the champion, to hold a kind of batch against
# A champion is rated over longer than a challenger stands.
_RATINGS_WINDOW = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Record:
    """What the log says of one version. Ratings are from 1 to 10.

    `batch_ms` is what a batch took, in milliseconds, over the `timed` batches that both versions can be compared by.
    """

    version: str
    captions: int = 0  # answered or made along
    failures: int = 0
    timed: int = 0
    batch_ms: float | None = None
    ratings: int = 0
    mean_rating: float | None = None
    rating_deviation: float | None = None


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


def trial_record(
    caption: uuid.UUID, kind: ChallengerTrial.Kind, model_version: str, outcome: Prediction | Exception
) -> None:
    """Keep what a challenger made of the photo of `caption`, which the champion answered."""
    trial = ChallengerTrial(caption_id=caption, kind=kind, model_version=model_version)
    if isinstance(outcome, Exception):
        trial.error = f"{type(outcome).__name__}: {outcome}"
    else:
        trial.text = outcome.candidates[0].caption if outcome.candidates else ""
        trial.error = "" if trial.text else "It said nothing."
        trial.inference_ms = round(outcome.inference_seconds * 1000, 1)
        trial.batch_size = outcome.batch_size
    try:
        with transaction.atomic():
            trial.save(force_insert=True)
    except IntegrityError:
        logger.info("The caption %s was deleted before the challenger was done with its photo.", caption)
    except DatabaseError as error:  # the caption stands, and it is only about a trial
        logger.warning("What the challenger made of a photo is not logged: %s", error)


def challenger_compare() -> Comparison | None:
    """The challenger beside the champion; None while there is no challenger."""
    aliases = promotions.aliases_get()
    since = promotions.challenger_since()
    if since is None or set(aliases) != set(Alias.Name):
        return None
    champion, challenger = aliases[Alias.Name.CHAMPION], aliases[Alias.Name.CHALLENGER]
    timed, champion_ms, challenger_ms = _like_batches(
        _batch_times(champion, since), _batch_times(challenger, since)
    )
    return Comparison(
        since=since,
        champion=_record(champion, since, timezone.now() - _RATINGS_WINDOW, timed, champion_ms),
        challenger=_record(challenger, since, since, timed, challenger_ms),
    )


def challenger_check() -> str | None:
    """Take the challenger back if it breaches a limit; returns why."""
    comparison = challenger_compare()
    if comparison is None:
        return None
    reason = next(_breaches(comparison, promotions.rollout_get()), None)
    if reason is None:
        return None
    taken_back = promotions.challenger_clear(
        reason=reason,
        report=comparison.to_dict(),
        only=versions.version_get(comparison.challenger.version),
        cause=Promotion.Cause.BREACH,
    )
    if taken_back is not None:
        metrics.challengers_taken_back.inc()
        logger.error("The challenger %s was taken back: %s", taken_back, reason)
    return reason


def _record(
    version: ModelVersion, since: datetime, ratings_since: datetime, timed: int, batch_ms: float | None
) -> Record:
    answered, trials = _captions(version, since), _trials(version, since)
    # What was remembered is no merit of the version.
    rated = Feedback.objects.filter(
        caption__model_version=version.pk,
        caption__origin=Caption.Origin.MODEL,
        caption__created_at__gte=ratings_since,
        rating__isnull=False,
    ).exclude(status=Feedback.Status.REJECTED)
    ratings = rated.aggregate(count=Count("pk"), mean=Avg("rating"), deviation=StdDev("rating", sample=True))
    return Record(
        version=version.pk,
        captions=answered.count() + trials.filter(error="").count(),
        failures=trials.exclude(error="").count(),
        timed=timed,
        batch_ms=batch_ms,
        ratings=ratings["count"],
        mean_rating=ratings["mean"],
        rating_deviation=ratings["deviation"],
    )


def _captions(version: ModelVersion, since: datetime) -> QuerySet[Caption]:
    return Caption.objects.filter(model_version=version.pk, created_at__gte=since)


def _trials(version: ModelVersion, since: datetime) -> QuerySet[ChallengerTrial]:
    return ChallengerTrial.objects.filter(model_version=version.pk, created_at__gte=since)


class _Kind(NamedTuple):
    """What decides how long a batch takes, whatever the weights."""

    beams: int
    photos: int


_Times = dict[_Kind, list[float]]  # milliseconds of inference, one per batch


def _batch_times(version: ModelVersion, since: datetime) -> _Times:
    """How long the newest batches took, answered and made along, by their kind."""
    answered = _captions(version, since).order_by("-created_at")
    made = _trials(version, since).order_by("-created_at")
    timed: defaultdict[_Kind, list[float]] = defaultdict(list)
    for beams, photos, milliseconds in (
        *answered.values_list("decoding__num_beams", "batch_size", "inference_ms")[:_TIMED_CAPTIONS],
        *made.values_list("caption__decoding__num_beams", "batch_size", "inference_ms")[:_TIMED_CAPTIONS],
    ):
        if photos is not None and milliseconds is not None:  # it failed, or is of an earlier release
            timed[_Kind(beams, photos)].append(milliseconds)
    # Each photo of a batch was logged with the time of all: one of them stands for the batch.
    return {kind: sorted(each)[:: kind.photos] for kind, each in timed.items()}


def _like_batches(champion: _Times, challenger: _Times) -> tuple[int, float | None, float | None]:
    """How many batches can be compared, and what they took the champion and the challenger: means of medians.

    The champion, which answers more, gets larger batches. So each kind is compared by itself, and what the challenger
    did of it counts as often as both did it.
    """
    pairs = [
        (min(len(own), len(like)), statistics.median(like), statistics.median(own))
        for kind, own in challenger.items()
        if (like := _like(champion, kind))
    ]
    timed = sum(count for count, _, _ in pairs)
    if not timed:
        return 0, None, None
    return (
        timed,
        sum(count * like for count, like, _ in pairs) / timed,
        sum(count * own for count, _, own in pairs) / timed,
    )


def _like(champion: _Times, kind: _Kind) -> list[float]:
    """The champion's times of this kind; where they are few, also those of larger batches, which take no less."""
    like: list[float] = []
    for beams, photos in sorted(champion):
        if beams == kind.beams and photos >= kind.photos and len(like) < _LIKE_BATCHES:
            like += champion[_Kind(beams, photos)]
    return like


def _breaches(comparison: Comparison, limits: Rollout) -> Iterator[str]:
    champion, challenger = comparison.champion, comparison.challenger
    total = challenger.captions + challenger.failures
    if challenger.failures >= _MIN_FAILURES and _rate_low(challenger.failures, total) > limits.max_error_rate:
        yield f"It failed {challenger.failures} of {total} photos; at most {limits.max_error_rate:.1%} may fail."
    if (
        champion.batch_ms
        and challenger.batch_ms
        and challenger.timed >= limits.min_captions
        and challenger.batch_ms > limits.max_latency_ratio * champion.batch_ms
    ):
        yield (
            f"It takes {challenger.batch_ms:.0f} ms over batches that take the champion {champion.batch_ms:.0f}; "
            f"at most {limits.max_latency_ratio:g} times as long is allowed."
        )
    if min(champion.ratings, challenger.ratings) >= limits.min_ratings:
        drop = (champion.mean_rating or 0.0) - (challenger.mean_rating or 0.0)
        # The standard error of that (Welch).
        error = math.sqrt(
            sum((each.rating_deviation or 0.0) ** 2 / each.ratings for each in comparison.records)
        )
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
