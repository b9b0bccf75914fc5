"""May a candidate replace the champion? Paired bootstrap on per-photo scores, and guards against what scores miss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from statistics import NormalDist
from typing import Any

import numpy as np

from training.judging.association import Association
from training.judging.figures import distinct_share, function_word_endings, mean_length
from training.judging.memorising import Memorising, repeated_find

RESAMPLES = 10_000
MOST_RESAMPLES = 100_000
LEVEL = 0.05  # one-sided: of a bound, or of all bounds of harm together
LOOKS = 100  # in so many the chance of promoting what is no better stays below `LEVEL`
MIN_PHOTOS = 200  # held out, each with all that look like it counted once
MIN_REPLAYED = 100
MIN_GAIN = 2.0  # CIDEr-D points on the feedback holdout
MAX_LOSS = 3.0  # on anchor and original photos, and how far its lower bound may go:
MAX_LOSS_BOUND = 5.0
MAX_REPEATED = 0.01  # captions that repeat a correction, beyond those of the base
MAX_FUNCTION_WORD_ENDINGS = 0.01
MIN_DISTINCT_RATIO = 0.8
LENGTH_TOLERANCE = 0.25
MAX_LATENCY_RATIO = 1.1
MAX_CHANCE = 0.001  # that captions which have nothing to do with their photos look as if they had


class Question(StrEnum):
    """What the gate asks, by the names that programs know."""

    HARM = "harm"
    HOLDOUT = "holdout"
    FIT = "fit"
    ENDINGS = "endings"
    DISTINCT = "distinct"
    LENGTH = "length"
    MEMORISING = "memorising"
    ASSOCIATION = "association"
    ANCHOR = "anchor"
    ORIGINAL = "original"
    REPLAYED = "replayed"
    LATENCY = "latency"
    GOLDEN = "golden"


_ASKED = {
    Question.HARM: "proven to be worse",
    Question.HOLDOUT: "held-out feedback photos",
    Question.FIT: "captions fit their own photo better than other photos",
    Question.ENDINGS: "captions that end on a function word",
    Question.DISTINCT: "distinct captions",
    Question.LENGTH: "mean length",
    Question.MEMORISING: "captions that repeat what was written of other photos",
    Question.ASSOCIATION: "corrections belong to their photos",
    Question.ANCHOR: "anchor photos",
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
    """Mean difference of two versions over `photos`, in CIDEr-D points, with one-sided bounds.

    `lower` holds at 1 - `level`, `upper` at 1 - `harm_level`. `groups` of photos that look alike are the independent
    evidence.
    """

    mean: float
    lower: float
    upper: float
    photos: int
    groups: int
    level: float = LEVEL
    harm_level: float = LEVEL

    @property
    def proves_harm(self) -> bool:
        # A few photos may all be worse by chance, whatever the bound: 1/2 to their number.
        return 0.5**self.groups <= self.harm_level and self.upper < 0

    def __str__(self) -> str:
        photos = f"{self.photos} photos"
        if self.groups < self.photos:
            photos += f", {self.groups} of them different"
        return f"{self.mean:+.1f} CIDEr-D ({self.lower:+.1f} to {self.upper:+.1f}, {photos})"


Compared = Mapping[tuple[Question, str], Interval]  # by set and by whom the candidate is compared with


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
class Measured:
    """What three versions did on the same photos. Where the champion is the base itself, so are its captions."""

    candidate: ScoredCaptions
    champion: ScoredCaptions
    base: ScoredCaptions


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
    look: int | None  # None where the held-out photos were too few to promote anything

    @property
    def is_harmful(self) -> bool:
        """Whether the candidate was proven to be worse, on however few photos."""
        return Question.HARM in self.failed

    @property
    def failed(self) -> set[Question]:
        return {check.question for check in self.checks if check.passed is False}

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"verdict": str(self.verdict)}


_OF_FEW_PHOTOS_NO_ANSWER = {
    Question.HOLDOUT,
    Question.FIT,
    Question.ENDINGS,
    Question.DISTINCT,
    Question.LENGTH,
}


def look_level(look: int) -> float:
    """Returns the one-sided level at which the how-manieth comparison with a champion, from 1, is judged.

    Whoever tests every night promotes one day what is no better: 5 % in a night are 40 % in thirty. So `LEVEL` is
    spent over the looks (alpha spending; Lan and DeMets 1983): half of it on the first few, on the k-th 6 / (pi k)^2,
    the sum of which is 1, and half evenly on every `LOOKS`, so that it is never used up.
    """
    return LEVEL / 2 * max(6 / (math.pi * look) ** 2, 1 / LOOKS)


def paired_bootstrap(
    candidate: Sequence[float],
    champion: Sequence[float],
    groups: Sequence[str] = (),
    *,
    seed: int = 0,
    level: float = LEVEL,
    harm_level: float = LEVEL,
) -> Interval:
    """Returns the mean difference and its percentile interval (Efron; Koehn 2004) over resampled photos, in pairs.

    With `groups`, one name per photo, whole groups are drawn (the cluster bootstrap): photos that look alike get like
    captions, and are no independent evidence. Percentiles of few groups are too narrow and are taken further out
    (Hesterberg 2015, "What teachers should know about the bootstrap", 4.1.2).
    """
    if len(candidate) != len(champion) or not len(candidate):
        raise ValueError(f"{len(candidate)} scores of the candidate for {len(champion)} of the champion.")
    differences = np.asarray(candidate, float) - np.asarray(champion, float)
    _, group = np.unique(groups or np.arange(len(differences)), return_inverse=True)
    sums, sizes = np.bincount(group, differences), np.bincount(group)
    resamples = min(MOST_RESAMPLES, max(RESAMPLES, round(25 / min(level, harm_level))))
    generator = np.random.default_rng(seed)
    means, part = list[float](), max(1, 4_000_000 // len(sizes))  # drawn at a time, for the sake of memory
    while len(means) < resamples:
        drawn = generator.integers(
            len(sizes), size=(min(part, resamples - len(means)), len(sizes)), dtype=np.int32
        )
        means += (sums[drawn].sum(1) / sizes[drawn].sum(1)).tolist()
    lower, upper = np.quantile(means, (_expanded(level, len(sizes)), 1 - _expanded(harm_level, len(sizes))))
    return Interval(
        float(differences.mean()), float(lower), float(upper), len(differences), len(sizes), level, harm_level
    )


def _expanded(level: float, groups: int) -> float:
    """Returns the percentile, from 0 to `level`, whose bound has this level: Student's t where the normal would do."""
    if groups < 2:
        return 0.0
    z, freedom = NormalDist().inv_cdf(level), groups - 1
    # The quantile of t by that of the normal: Abramowitz and Stegun 26.7.5.
    t = z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    return NormalDist().cdf(t * math.sqrt(groups / (groups - 1)))


def decide(
    *,
    holdout: Measured,
    kept: Mapping[Question, Measured],
    corrections: Sequence[str],
    people: Sequence[str],
    association: Association | None,
    replayed: int,
    latency_ratio: float | None,
    golden_captioned: bool,
    golden_note: str = "",
    groups: Sequence[str] = (),
    look: int = 1,
    seed: int = 0,
) -> Decision:
    """Returns the verdict on a candidate that, with champion and base, captioned held-out feedback photos and others.

    `kept` holds the photos of which nothing may be forgotten, under `Question.ANCHOR` and `Question.ORIGINAL`;
    `corrections` is what the candidate learned from, and `people` what a person wrote of each held-out photo;
    `association` says whether the corrections belong to their photos, and is None where there were too few to tell;
    `replayed` is the number of photos on which the candidate was kept with its base; `groups` names, of each held-out
    photo, the group of those that look like it. `look` is the how-manieth comparison with this champion, from 1.
    `latency_ratio` is seconds per token, candidate over champion; None where it could not be measured.

    A failed check rejects; a question that could not be asked, or too few held-out photos, leaves the decision to
    people. Proven harm rejects on however few photos.
    """
    candidate, champion = holdout.candidate, holdout.champion
    compared = _compare({Question.HOLDOUT: holdout, **kept}, groups, seed)
    gain, fit = compared.get((Question.HOLDOUT, "champion")), None
    if gain and gain.lower > 0:  # at a stricter level it is no higher
        spent = paired_bootstrap(
            candidate.cider_d, champion.cider_d, groups, seed=seed, level=look_level(look)
        )
        gain = replace(gain, lower=spent.lower, level=spent.level)
    if candidate.strangers and champion.strangers:
        fit = paired_bootstrap(candidate.fit, champion.fit, groups, seed=seed)
    checks = (
        _harm(compared),
        _check(
            Question.HOLDOUT,
            None if gain is None else gain.mean >= MIN_GAIN and gain.lower > 0,
            str(gain or "no photos"),
            f"at least +{MIN_GAIN:g} and a lower bound above 0 at {look_level(look):.2%}, "
            f"this being look {look} at the champion",
        ),
        # Whoever learned nothing but how people talk scores better on any photo, and on no photo for what it shows.
        _check(
            Question.FIT,
            None if fit is None else fit.lower > 0,
            str(fit or "not measured"),
            "a lower bound of the gain above 0",
        ),
        *_guards(candidate.captions, champion.captions, people),
        _memorising(holdout, kept, corrections),
        _check(
            Question.ASSOCIATION,
            None if association is None else association.p <= MAX_CHANCE,
            str(association or "too few corrections to tell"),
            f"by chance in at most {MAX_CHANCE:.1%} of deals",
        ),
        *_forgetting(compared),
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
    verdict, reason = _verdict(checks, gain.groups if gain else 0)
    return Decision(verdict, reason, checks, gain, look if gain and gain.groups >= MIN_PHOTOS else None)


def _compare(sets: Mapping[Question, Measured], groups: Sequence[str], seed: int) -> Compared:
    """Returns the candidate's differences from the champion and from the base, where this is another one, on each set.

    Whoever asks six times, and calls harm what one answer in twenty shows by chance, finds it in every fourth harmless
    candidate: the bounds of harm share `LEVEL` (Bonferroni).
    """
    pairs = [
        (question, role, on.candidate.cider_d, other.cider_d)
        for question, on in sets.items()
        for role, other in (("champion", on.champion), ("base", on.base))
        if on.candidate.captions and (role == "champion" or other.captions != on.champion.captions)
    ]
    return {
        (question, role): paired_bootstrap(
            ours,
            theirs,
            groups if question == Question.HOLDOUT else (),
            seed=seed,
            harm_level=LEVEL / len(pairs),
        )
        for question, role, ours, theirs in pairs
    }


def _harm(compared: Compared) -> Check:
    worse = [
        f"{_ASKED[question]} against the {role}: {interval}"
        for (question, role), interval in compared.items()
        if interval.proves_harm
    ]
    return _check(
        Question.HARM,
        not worse if compared else None,
        "; ".join(worse) or "nowhere",
        f"no upper bound of a difference below 0 at {LEVEL:.0%} for all {len(compared)} together",
    )


def _forgetting(compared: Compared) -> Sequence[Check]:
    """Returns a check for each set of which nothing may be forgotten; one that could not be asked where there is none.

    Against the base as well: a little less than each champion every night adds up.
    """
    against: dict[Question, dict[str, Interval]] = {}
    for (question, role), interval in compared.items():
        if question != Question.HOLDOUT:
            against.setdefault(question, {})[role] = interval
    return [
        _check(
            question,
            all(each.mean >= -MAX_LOSS and each.lower > -MAX_LOSS_BOUND for each in by_role.values()),
            "; ".join(f"{interval} against the {role}" for role, interval in by_role.items()),
            f"at least -{MAX_LOSS:g} and a lower bound above -{MAX_LOSS_BOUND:g}",
        )
        for question, by_role in against.items()
    ] or [_check(Question.ANCHOR, None, "no photos", "photos to hold on to")]


def _memorising(holdout: Measured, kept: Mapping[Question, Measured], corrections: Sequence[str]) -> Check:
    """Returns whether the candidate repeats corrections on photos that they were not written for, all sets together."""
    sets = (holdout, *kept.values())
    told, before = (
        repeated_find([caption for each in captions for caption in each], corrections)
        for captions in ([each.candidate.captions for each in sets], [each.base.captions for each in sets])
    )
    found = Memorising(sum(told), sum(before), len(told))
    allowed = max(1, int(MAX_REPEATED * found.captions))  # one caption is a coincidence
    return _check(
        Question.MEMORISING,
        found.excess <= allowed if found.captions else None,
        str(found),
        f"at most {allowed} more than of the base",
    )


def _check(question: Question, passed: bool | None, measured: str, required: str) -> Check:
    return Check(question, _ASKED[question], passed, measured, required)


def _verdict(checks: Sequence[Check], photos: int) -> tuple[Verdict, str]:
    """Returns verdict and reason. `photos` that differ are held out: a few are no answer, but other failures count."""
    few = photos < MIN_PHOTOS
    if few:
        checks = [check for check in checks if check.question not in _OF_FEW_PHOTOS_NO_ANSWER]
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
