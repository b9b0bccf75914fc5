"""E8: how often blind votes promote a candidate, by how many judges of a hundred prefer it. No photos, no Django."""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Iterator
from statistics import median
from typing import Any

from training.judging.votes import MOST_VOTES, VotesVerdict, votes_judge

SHARES = (0.5, 0.6, 0.7, 0.8)


def run(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A thousand ballots, or as many as `--sizes` says, for each share of judges who prefer the candidate.

    Judges are simulated; the test is the service's own.
    """
    runs = options.sizes[0] if options.sizes else 1000
    for share in SHARES:
        judge = random.Random(f"judges {share}")
        results = [votes_judge(judge.random() < share for _ in range(MOST_VOTES)) for _ in range(runs)]
        verdicts = Counter(result.verdict for result in results)
        yield {
            "prefer": share,
            "runs": len(results),
            **{str(verdict): round(verdicts[verdict] / len(results), 4) for verdict in VotesVerdict},
            "median_votes": median(result.votes for result in results),
            "most_votes": max(result.votes for result in results),
        }
