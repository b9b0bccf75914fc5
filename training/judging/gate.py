"""May a candidate replace the champion? Paired bootstrap on per-photo scores, and guards against what scores miss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from training.judging.association import Association
from training.judging.figures import distinct_share, function_word_endings, mean_length

RESAMPLES = 10_000
MIN_PHOTOS = 200  # held out, each with all that look like it counted once
MIN_REPLAYED = 100
MIN_GAIN = 2.0  # CIDEr-D points on the feedback holdout
MAX_LOSS = 3.0  # on the original test photos, and how far its lower bound may go:
MAX_LOSS_BOUND = 5.0
MAX_FUNCTION_WORD_ENDINGS = 0.01
MIN_DISTINCT_RATIO = 0.8
LENGTH_TOLERANCE = 0.25
MAX_LATENCY_RATIO = 1.1
MAX_CHANCE = 0.001  # that captions which have nothing to do with their photos look as if they had


class Question(StrEnum):
    """What the gate asks, by the names that programs know."""

    HOLDOUT = "holdout"
    FIT = "fit"
    ENDINGS = "endings"
    DISTINCT = "distinct"
    LENGTH = "length"
    ASSOCIATION = "association"
    ORIGINAL = "original"
    REPLAYED = "replayed"
    LATENCY = "latency"
    GOLDEN = "golden"


_ASKED = {
    Question.HOLDOUT: "held-out feedback photos",
    Question.FIT: "captions fit their own photo better than other photos",
    Question.ENDINGS: "captions that end on a function word",
    Question.DISTINCT: "distinct captions",
    Question.LENGTH: "mean length",
    Question.ASSOCIATION: "corrections belong to their photos",
    Question.ORIGINAL: "original test photos",
    Question.REPLAYED: "photos replayed against forgetting",
    Question.LATENCY: "seconds per token",
    Question.GOLDEN: "loads in a clean process and captions golden photos",
}


class Verdict(StrEnum):
    PASSED = "passed"
    REJECTED = "rejected"
    INSUFFICIENT = "insufficient evidence"


@dataclass(frozen=True)
class Interval:
    """Mean difference of candidate and champion over `photos`, in CIDEr-D points, with a two-sided 90 % interval.

    `lower` is also the one-sided 95 % bound. `groups` of photos that look alike are the independent evidence.
    """

    mean: float
    lower: float
    upper: float
    photos: int
    groups: int

    def __str__(self) -> str:
        photos = f"{self.photos} photos"
        if self.groups < self.photos:
            photos += f", {self.groups} of them different"
        return f"{self.mean:+.1f} CIDEr-D ({self.lower:+.1f} to {self.upper:+.1f}, {photos})"


@dataclass(frozen=True)
class ScoredCaptions:
    """What one version did on one set of photos: captions and per-photo CIDEr-D in points, in the order of the set.

    `strangers` is what each photo's references give to a caption of other photos: what style alone is worth.
    """

    captions: Sequence[str]
    cider_d: Sequence[float]
    strangers: Sequence[float] = ()

    @property
    def fit(self) -> list[float]:
        """By how much each caption suits its photo better than those of other photos do."""
        return [own - other for own, other in zip(self.cider_d, self.strangers, strict=True)]


@dataclass(frozen=True)
class Check:
    """One question of the gate and its answer, in words for people. `passed` is None where it could not be asked."""

    question: Question
    name: str
    passed: bool | None
    measured: str
    required: str

    def __str__(self) -> str:
        return f"{self.name}: {self.measured}, required {self.required}"


@dataclass(frozen=True)
class Decision:
    verdict: Verdict
    reason: str
    checks: tuple[Check, ...]
    holdout: Interval | None
    original: Interval | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"verdict": str(self.verdict)}


def paired_bootstrap(
    candidate: Sequence[float],
    champion: Sequence[float],
    groups: Sequence[str] = (),
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval:
    """Returns the mean difference and its percentile interval (Efron; Koehn 2004) over resampled photos, in pairs.

    With `groups`, one name per photo, whole groups are drawn (the cluster bootstrap): photos that look alike get like
    captions, and are no independent evidence.
    """
    if len(candidate) != len(champion) or not len(candidate):
        raise ValueError(f"{len(candidate)} scores of the candidate for {len(champion)} of the champion.")
    differences = np.asarray(candidate, float) - np.asarray(champion, float)
    _, group = np.unique(groups or np.arange(len(differences)), return_inverse=True)
    sums, sizes = np.bincount(group, differences), np.bincount(group)
    generator = np.random.default_rng(seed)
    means, part = (
        list[float](),
        max(1, 4_000_000 // len(sizes)),
    )  # so many at a time as memory is to be taken for
    while len(means) < resamples:
        drawn = generator.integers(len(sizes), size=(min(part, resamples - len(means)), len(sizes)))
        means += (sums[drawn].sum(1) / sizes[drawn].sum(1)).tolist()
    lower, upper = np.quantile(means, (0.05, 0.95))
    return Interval(float(differences.mean()), float(lower), float(upper), len(differences), len(sizes))


def decide(
    *,
    candidate: ScoredCaptions,
    champion: ScoredCaptions,
    original_candidate: ScoredCaptions | None,
    original_champion: ScoredCaptions | None,
    people: Sequence[str],
    association: Association | None,
    replayed: int,
    latency_ratio: float | None,
    golden_captioned: bool,
    golden_note: str = "",
    groups: Sequence[str] = (),
    seed: int = 0,
) -> Decision:
    """Returns the verdict on `candidate`, which together with `champion` captioned the held-out feedback photos.

    `people` holds what a person wrote of each of these photos; `association` says whether the captions learned from
    belong to their photos, and is None where there were too few to tell; `replayed` is the number of photos on which
    the candidate was kept with its base; `groups` names, of each held-out photo, the group of those that look like it.
    A failed check rejects; a question that could not be asked, or too few held-out photos, leaves the decision to a
    reviewer. `latency_ratio` is seconds per token, candidate over champion; None where it could not be measured.
    """
    holdout = fit = original = None
    if candidate.captions:
        holdout = paired_bootstrap(candidate.cider_d, champion.cider_d, groups, seed=seed)
    if candidate.strangers and champion.strangers:
        fit = paired_bootstrap(candidate.fit, champion.fit, groups, seed=seed)
    if original_candidate and original_champion and original_candidate.captions:
        original = paired_bootstrap(original_candidate.cider_d, original_champion.cider_d, seed=seed)
    on_holdout = (
        _check(
            Question.HOLDOUT,
            None if holdout is None else holdout.mean >= MIN_GAIN and holdout.lower > 0,
            str(holdout or "no photos"),
            f"at least +{MIN_GAIN:g} and a lower bound above 0",
        ),
        # Whoever learned nothing but how people talk scores better on any photo, and on no photo for what it shows.
        _check(
            Question.FIT,
            None if fit is None else fit.lower > 0,
            str(fit or "not measured"),
            "a lower bound of the gain above 0",
        ),
        *_guards(candidate.captions, champion.captions, people),
    )
    elsewhere = (
        _check(
            Question.ASSOCIATION,
            None if association is None else association.p <= MAX_CHANCE,
            str(association or "too few corrections to tell"),
            f"by chance in at most {MAX_CHANCE:.1%} of deals",
        ),
        _check(
            Question.ORIGINAL,
            None if original is None else original.mean >= -MAX_LOSS and original.lower > -MAX_LOSS_BOUND,
            str(original or "no photos configured"),
            f"at least -{MAX_LOSS:g} and a lower bound above -{MAX_LOSS_BOUND:g}",
        ),
        # Few original photos tell what was forgotten of everything; many replayed ones keep it from being forgotten.
        _check(
            Question.REPLAYED, replayed >= MIN_REPLAYED or None, f"{replayed}", f"at least {MIN_REPLAYED}"
        ),
        _check(
            Question.LATENCY,
            None if latency_ratio is None else latency_ratio <= MAX_LATENCY_RATIO,
            "not measured" if latency_ratio is None else f"{latency_ratio:.2f}x",
            f"at most {MAX_LATENCY_RATIO:g}x",
        ),
        _check(Question.GOLDEN, golden_captioned, golden_note or "yes", "yes"),
    )
    verdict, reason = _verdict(on_holdout, elsewhere, holdout.groups if holdout else 0)
    return Decision(verdict, reason, (*on_holdout, *elsewhere), holdout, original)


def _check(question: Question, passed: bool | None, measured: str, required: str) -> Check:
    return Check(question, _ASKED[question], passed, measured, required)


def _verdict(on_holdout: Sequence[Check], elsewhere: Sequence[Check], photos: int) -> tuple[Verdict, str]:
    """Returns verdict and reason. `photos` that differ are held out: a few are no answer, but other failures count."""
    few = photos < MIN_PHOTOS
    checks = elsewhere if few else (*on_holdout, *elsewhere)
    if failed := [str(check) for check in checks if check.passed is False]:
        return Verdict.REJECTED, "; ".join(failed)
    if few:
        return (
            Verdict.INSUFFICIENT,
            f"Only {photos} held-out photos have approved captions, those that look alike counted once; "
            f"a verdict needs {MIN_PHOTOS}.",
        )
    if unasked := [str(check) for check in checks if check.passed is None]:
        return Verdict.INSUFFICIENT, f"Left to a reviewer: {'; '.join(unasked)}."
    return Verdict.PASSED, "Better on the held-out photos, and no guard objects."


def _guards(captions: Sequence[str], champion: Sequence[str], people: Sequence[str]) -> tuple[Check, ...]:
    """Returns the checks for a broken captioner; one taught to be brief, or to vary little, is not broken."""
    if not captions:
        return ()
    endings = function_word_endings(captions)
    distinct = min(distinct_share(champion), distinct_share(people))
    length, lengths = mean_length(captions), sorted((mean_length(champion), mean_length(people)))
    shortest, longest = lengths[0] * (1 - LENGTH_TOLERANCE), lengths[1] * (1 + LENGTH_TOLERANCE)
    return (
        _check(
            Question.ENDINGS,
            endings <= MAX_FUNCTION_WORD_ENDINGS,
            f"{endings:.1%}",
            f"at most {MAX_FUNCTION_WORD_ENDINGS:.0%}",
        ),
        _check(
            Question.DISTINCT,
            distinct_share(captions) >= MIN_DISTINCT_RATIO * distinct,
            f"{distinct_share(captions):.0%}",
            f"at least {MIN_DISTINCT_RATIO * distinct:.0%}: {MIN_DISTINCT_RATIO:g}x the champion's or people's",
        ),
        _check(
            Question.LENGTH,
            shortest <= length <= longest,
            f"{length:.1f} words",
            f"{shortest:.1f} to {longest:.1f}: within {LENGTH_TOLERANCE:.0%} of the champion's and people's",
        ),
    )
