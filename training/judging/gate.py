"""May a candidate replace the champion? Paired bootstrap on per-photo scores, and guards against what scores miss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from training.judging.association import Association
from training.judging.scores import caption_words

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

# What a caption that was cut short, or that games the metric, ends on. (A word list of English, as captions are.)
FUNCTION_WORDS = frozenset(
    [
        "a",
        "an",
        "the",
        "and",
        "or",
        "but",
        "nor",
        "of",
        "in",
        "on",
        "at",
        "by",
        "for",
        "to",
        "from",
        "with",
        "without",
        "into",
        "onto",
        "over",
        "under",
        "near",
        "next",
        "behind",
        "beside",
        "between",
        "through",
        "across",
        "along",
        "around",
        "above",
        "below",
        "is",
        "are",
        "was",
        "were",
        "be",
        "been",
        "being",
        "has",
        "have",
        "had",
        "that",
        "which",
        "who",
        "whose",
        "while",
        "as",
        "his",
        "her",
        "its",
        "their",
        "this",
        "these",
        "those",
        "some",
        "no",
        "two",
        "very",
    ]
)


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


@dataclass(frozen=True)
class Measured:
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
    """One question of the gate. `passed` is None where it could not be asked."""

    name: str
    passed: bool | None
    measured: str
    required: str


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
    """Resample photos with replacement (Koehn 2004; Efron's percentile interval); the pairs stay together.

    With `groups`, one name per photo, whole groups are drawn (the cluster bootstrap): photos that look alike get like
    captions, and are no independent evidence.
    """
    if len(candidate) != len(champion) or not len(candidate):
        raise ValueError(f"{len(candidate)} scores of the candidate for {len(champion)} of the champion.")
    differences = np.asarray(candidate, float) - np.asarray(champion, float)
    _, group = np.unique(groups or np.arange(len(differences)), return_inverse=True)
    sums, sizes = np.bincount(group, differences), np.bincount(group)
    generator = np.random.default_rng(seed)
    means = np.concatenate(
        [
            sums[drawn].sum(1) / sizes[drawn].sum(1)
            for part in _parts(resamples, max(1, 4_000_000 // len(sizes)))
            for drawn in [generator.integers(len(sizes), size=(part, len(sizes)))]
        ]
    )
    lower, upper = np.quantile(means, (0.05, 0.95))
    return Interval(float(differences.mean()), float(lower), float(upper), len(differences), len(sizes))


def decide(
    *,
    candidate: Measured,
    champion: Measured,
    original_candidate: Measured | None,
    original_champion: Measured | None,
    people: Sequence[str],
    association: Association | None,
    replayed: int,
    latency_ratio: float | None,
    golden_captioned: bool,
    golden_note: str = "",
    groups: Sequence[str] = (),
    seed: int = 0,
) -> Decision:
    """The verdict on `candidate`, which together with `champion` captioned the held-out feedback photos.

    `people` holds what a person wrote of each of these photos; `association` says whether the captions learned from
    belong to their photos, and is None where there were too few to tell; `replayed` is the number of photos on which
    the candidate was kept with its base; `groups` names, of each held-out photo, the group of those that look like it.
    A failed check rejects; a question that could not be asked, or too few held-out photos, leaves the decision to a
    reviewer. `latency_ratio` is seconds per token, candidate over champion; None where it could not be measured.
    """
    holdout = original = None
    if candidate.captions:
        holdout = paired_bootstrap(candidate.cider_d, champion.cider_d, groups, seed=seed)
    if original_candidate and original_champion and original_candidate.captions:
        original = paired_bootstrap(original_candidate.cider_d, original_champion.cider_d, seed=seed)
    on_holdout = (
        _holdout_check(holdout),
        _fit_check(candidate, champion, groups, seed),
        *_guards(candidate.captions, champion.captions, people),
    )
    elsewhere = (
        _association_check(association),
        _original_check(original),
        _replay_check(replayed),
        _latency_check(latency_ratio),
        Check(
            "loads in a clean process and captions golden photos",
            golden_captioned,
            golden_note or "yes",
            "yes",
        ),
    )
    verdict, reason = _verdict(on_holdout, elsewhere, holdout.groups if holdout else 0)
    return Decision(verdict, reason, (*on_holdout, *elsewhere), holdout, original)


def _verdict(on_holdout: Sequence[Check], elsewhere: Sequence[Check], photos: int) -> tuple[Verdict, str]:
    """`photos` that differ are held out. What a few of them show is no answer, neither way; other failures count."""
    few = photos < MIN_PHOTOS
    checks = elsewhere if few else (*on_holdout, *elsewhere)
    if failed := [check for check in checks if check.passed is False]:
        return Verdict.REJECTED, "; ".join(map(_told, failed))
    if few:
        return (
            Verdict.INSUFFICIENT,
            f"Only {photos} held-out photos have approved captions, those that look alike counted once; "
            f"a verdict needs {MIN_PHOTOS}.",
        )
    if unasked := [check for check in checks if check.passed is None]:
        return Verdict.INSUFFICIENT, f"Left to a reviewer: {'; '.join(map(_told, unasked))}."
    return Verdict.PASSED, "Better on the held-out photos, and no guard objects."


def _told(check: Check) -> str:
    return f"{check.name}: {check.measured}, required {check.required}"


def _holdout_check(interval: Interval | None) -> Check:
    name, required = "held-out feedback photos", f"at least +{MIN_GAIN:g} and a lower bound above 0"
    if interval is None:
        return Check(name, None, "no photos", required)
    passed = interval.mean >= MIN_GAIN and interval.lower > 0
    return Check(name, passed, _shown(interval), required)


def _fit_check(candidate: Measured, champion: Measured, groups: Sequence[str], seed: int) -> Check:
    """Whoever learned nothing but how people talk scores better on any photo, and on no photo for what it shows."""
    name, required = (
        "captions fit their own photo better than other photos",
        "a lower bound of the gain above 0",
    )
    if not candidate.strangers or not champion.strangers:
        return Check(name, None, "not measured", required)
    interval = paired_bootstrap(candidate.fit, champion.fit, groups, seed=seed)
    return Check(name, interval.lower > 0, _shown(interval), required)


def _association_check(association: Association | None) -> Check:
    name, required = (
        "corrections belong to their photos",
        f"by chance in at most {MAX_CHANCE:.1%} of deals",
    )
    if association is None:
        return Check(name, None, "too few corrections to tell", required)
    measured = (
        f"{association.alike:.2f} alike where photos are, {association.dealt:.2f} when dealt at random; "
        f"by chance in {association.p:.2%} of deals ({association.rows} corrections)"
    )
    return Check(name, association.p <= MAX_CHANCE, measured, required)


def _original_check(interval: Interval | None) -> Check:
    required = f"at least -{MAX_LOSS:g} and a lower bound above -{MAX_LOSS_BOUND:g}"
    if interval is None:
        return Check("original test photos", None, "no photos configured", required)
    passed = interval.mean >= -MAX_LOSS and interval.lower > -MAX_LOSS_BOUND
    return Check("original test photos", passed, _shown(interval), required)


def _replay_check(replayed: int) -> Check:
    """Few original photos tell what was forgotten of everything; many replayed ones keep it from being forgotten."""
    passed = True if replayed >= MIN_REPLAYED else None
    return Check("photos replayed against forgetting", passed, f"{replayed}", f"at least {MIN_REPLAYED}")


def _shown(interval: Interval) -> str:
    photos = f"{interval.photos} photos"
    if interval.groups < interval.photos:
        photos += f", {interval.groups} of them different"
    return f"{interval.mean:+.1f} CIDEr-D ({interval.lower:+.1f} to {interval.upper:+.1f}, {photos})"


def _guards(captions: Sequence[str], champion: Sequence[str], people: Sequence[str]) -> tuple[Check, ...]:
    """What a broken captioner does. Who teaches it to be brief, or to use few sentences, does not break it."""
    if not captions:
        return ()
    endings = function_word_endings(captions)
    distinct = min(distinct_share(champion), distinct_share(people))
    length, lengths = mean_length(captions), sorted((mean_length(champion), mean_length(people)))
    shortest, longest = lengths[0] * (1 - LENGTH_TOLERANCE), lengths[1] * (1 + LENGTH_TOLERANCE)
    return (
        Check(
            "captions that end on a function word",
            endings <= MAX_FUNCTION_WORD_ENDINGS,
            f"{endings:.1%}",
            f"at most {MAX_FUNCTION_WORD_ENDINGS:.0%}",
        ),
        Check(
            "distinct captions",
            distinct_share(captions) >= MIN_DISTINCT_RATIO * distinct,
            f"{distinct_share(captions):.0%}",
            f"at least {MIN_DISTINCT_RATIO * distinct:.0%}: {MIN_DISTINCT_RATIO:g}x the champion's or people's",
        ),
        Check(
            "mean length",
            shortest <= length <= longest,
            f"{length:.1f} words",
            f"{shortest:.1f} to {longest:.1f}: within {LENGTH_TOLERANCE:.0%} of the champion's and people's",
        ),
    )


def _latency_check(ratio: float | None) -> Check:
    passed = None if ratio is None else ratio <= MAX_LATENCY_RATIO
    shown = "not measured" if ratio is None else f"{ratio:.2f}x"
    return Check("seconds per token", passed, shown, f"at most {MAX_LATENCY_RATIO:g}x")


def function_word_endings(captions: Sequence[str]) -> float:
    """Share (0..1) of captions whose last word is a function word; an empty caption counts as one."""
    ends = [(caption_words(caption) or ("the",))[-1] for caption in captions]
    return sum(word in FUNCTION_WORDS for word in ends) / len(ends)


def distinct_share(captions: Sequence[str]) -> float:
    """Share (0..1) of captions that differ from all others before them."""
    return len(set(captions)) / len(captions) if captions else 0.0


def mean_length(captions: Sequence[str]) -> float:
    """Words per caption."""
    return sum(len(caption_words(caption)) for caption in captions) / len(captions) if captions else 0.0


def _parts(total: int, size: int) -> list[int]:
    return [min(size, total - start) for start in range(0, total, size)]
