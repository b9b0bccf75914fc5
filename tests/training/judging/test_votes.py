"""The sequential test on blind votes: when it stops, and how often it is wrong."""

from __future__ import annotations

import random
from collections import Counter
from itertools import repeat

import pytest

from training.judging.votes import MOST_VOTES, VotesVerdict, votes_judge


def test_it_waits_until_it_knows() -> None:
    assert votes_judge([]).verdict is None
    assert votes_judge([True] * 11).verdict is None
    assert votes_judge([True] * 12).verdict == VotesVerdict.PREFERRED  # 12 log(0.65 / 0.5) > log 19
    assert votes_judge([False] * 8).verdict is None
    assert votes_judge([False] * 9).verdict == VotesVerdict.NOT_PREFERRED


def test_what_comes_after_the_decision_changes_nothing() -> None:
    decided = votes_judge([True] * 12)
    assert votes_judge([*repeat(True, 12), *repeat(False, 60)]) == decided
    assert str(decided) == "12 of 12 votes for the candidate: preferred"


def test_it_gives_up_after_as_many_votes_as_people_are_asked_for() -> None:
    between = ([True, False, True, False, True, True, False] * MOST_VOTES)[: MOST_VOTES + 10]
    result = votes_judge(between)
    assert (result.verdict, result.votes) == (VotesVerdict.UNDECIDED, MOST_VOTES)


@pytest.mark.parametrize(("share", "least", "most"), [(0.5, 0.0, 0.06), (0.8, 0.98, 1.0)])
def test_it_is_as_seldom_wrong_as_it_says(share: float, least: float, most: float) -> None:
    judge = random.Random(1)
    verdicts = Counter(
        votes_judge(judge.random() < share for _ in range(MOST_VOTES)).verdict for _ in range(1000)
    )
    assert least <= verdicts[VotesVerdict.PREFERRED] / 1000 <= most
