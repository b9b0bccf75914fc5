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
MEANING = f"whether {BETTER:.0%} of votes prefer it or {NO_BETTER:.0%}, at most {ERROR:.0%} of verdicts wrong"


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


def votes_judge(votes: Iterable[bool]) -> VotesResult:
    """Returns what `votes`, true where the candidate was preferred, say up to where they decide; later ones count not.

    The logarithm of how much likelier the votes are if `BETTER` is true than if `NO_BETTER` is walks until it leaves
    +-log((1 - ERROR) / ERROR), or `MOST_VOTES` were cast.
    """
    bound, walked, count, preferring = math.log((1 - ERROR) / ERROR), 0.0, 0, 0
    for count, is_preferred in enumerate(votes, start=1):
        preferring += is_preferred
        better, no_better = (BETTER, NO_BETTER) if is_preferred else (1 - BETTER, 1 - NO_BETTER)
        walked += math.log(better / no_better)
        if walked >= bound:
            return VotesResult(count, preferring, VotesVerdict.PREFERRED)
        if walked <= -bound:
            return VotesResult(count, preferring, VotesVerdict.NOT_PREFERRED)
        if count == MOST_VOTES:
            return VotesResult(count, preferring, VotesVerdict.UNDECIDED)
    return VotesResult(count, preferring, None)
