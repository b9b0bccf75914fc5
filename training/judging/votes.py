"""Do people prefer the candidate? Wald's sequential probability ratio test on blind votes (Wald 1945)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

NO_BETTER = 0.5  # share of votes for a candidate that is not to be promoted
BETTER = 0.65  # and for one that is
ERROR = 0.05  # of either kind, at most
MOST_VOTES = 120  # after which nobody is asked any more
# How often a first candidate that is no better is preferred: votes are few and end, so it is below `ERROR`, and what is
# left of that is for the candidates that follow.
SPENT_AT_FIRST = 0.041
LOOKS = 100


class VotesVerdict(StrEnum):
    PREFERRED = "preferred"
    NOT_PREFERRED = "not preferred"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class VotesResult:
    """`verdict` is None while votes are still to be cast."""

    votes: int
    preferring: int
    verdict: VotesVerdict | None

    def __str__(self) -> str:
        told = f"{self.preferring} of {self.votes} votes for the candidate"
        return f"{told}: {self.verdict}" if self.verdict else told


def look_error(look: int) -> float:
    """Returns how often, at most, the how-manieth candidate beside one champion, from 1, is preferred though no better.

    Whoever has every night's candidate voted on promotes one day what is no better. So all candidates beside a champion
    share `ERROR`, as the gate's looks do (`gate.look_level`). The first is asked at `ERROR`, of which its test spends
    `SPENT_AT_FIRST`; the rest is spent over those that follow, half on the first few, and half evenly on `LOOKS`.
    """
    if look == 1:
        return ERROR
    return (ERROR - SPENT_AT_FIRST) / 2 * max(6 / (math.pi * (look - 1)) ** 2, 1 / LOOKS)


def votes_asked(look: int) -> str:
    """Returns what votes on this candidate are to tell, in words."""
    told = (
        f"whether {BETTER:.0%} of votes prefer it or {NO_BETTER:.0%}, at most {ERROR:.0%} of verdicts wrong"
    )
    if look == 1:
        return told
    return (
        f"{told}; it is the {look}. candidate that is voted on beside this champion, and one that is no better may be "
        f"preferred in {look_error(look):.2%}"
    )


def votes_judge(votes: Iterable[bool], look: int = 1) -> VotesResult:
    """Returns what `votes`, true where the candidate was preferred, say up to where they decide; later ones count not.

    The logarithm of how much likelier the votes are if `BETTER` is true than if `NO_BETTER` is walks until it rises to
    log((1 - ERROR) / look_error(look)), falls to -log((1 - ERROR) / ERROR), or `MOST_VOTES` were cast.
    """
    bound, needed = math.log((1 - ERROR) / ERROR), math.log((1 - ERROR) / look_error(look))
    walked, count, preferring = 0.0, 0, 0
    for count, is_preferred in enumerate(votes, start=1):
        preferring += is_preferred
        better, no_better = (BETTER, NO_BETTER) if is_preferred else (1 - BETTER, 1 - NO_BETTER)
        walked += math.log(better / no_better)
        if walked >= needed:
            return VotesResult(count, preferring, VotesVerdict.PREFERRED)
        if walked <= -bound:
            return VotesResult(count, preferring, VotesVerdict.NOT_PREFERRED)
        if count == MOST_VOTES:
            return VotesResult(count, preferring, VotesVerdict.UNDECIDED)
    return VotesResult(count, preferring, None)
