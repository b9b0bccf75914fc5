"""The sequential test on blind votes: when it stops, and how often it is wrong."""

from __future__ import annotations

import random
from collections import Counter
from itertools import repeat
from math import log

import pytest

from training.judging.votes import (
    ERROR,
    LOOKS,
    MOST_VOTES,
    SPENT_AT_FIRST,
    VotesVerdict,
    look_error,
    votes_asked,
    votes_judge,
)


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


def preferred_by_chance(look: int) -> float:
    """How often coins promote the candidate: all ways that votes can go, by their number."""
    ways, promoted = {0: 1.0}, 0.0  # votes for it so far -> chance, as long as nothing is decided
    for votes in range(1, MOST_VOTES + 1):
        after: Counter[int] = Counter()
        for preferring, chance in ways.items():
            after[preferring] += chance / 2
            after[preferring + 1] += chance / 2
        ways = {}
        for preferring, chance in after.items():
            # In an order that decides nothing before, the votes' last word is the sum's.
            walked = preferring * log(0.65 / 0.5) + (votes - preferring) * log(0.35 / 0.5)
            if walked >= log((1 - ERROR) / look_error(look)):
                promoted += chance
            elif walked > -log((1 - ERROR) / ERROR):
                ways[preferring] = chance
    return promoted


def test_candidates_beside_one_champion_share_what_one_may_err() -> None:
    """Every night's vote at 5 % promotes in forty nights, almost surely, what is no better."""
    chances = [preferred_by_chance(look) for look in range(1, 12)]
    assert 0.04 < chances[0] < SPENT_AT_FIRST, "the first is asked as if it were the only one"
    assert chances == sorted(chances, reverse=True)
    assert SPENT_AT_FIRST + sum(look_error(look) for look in range(2, LOOKS + 2)) <= ERROR
    assert sum(chances) < ERROR


def test_a_later_candidate_takes_more_votes_and_the_page_says_so() -> None:
    assert votes_judge([True] * 12, look=2).verdict is None
    assert votes_judge([True] * 23, look=2).verdict == VotesVerdict.PREFERRED
    assert votes_judge([False] * 9, look=2).verdict == VotesVerdict.NOT_PREFERRED
    assert "2. candidate that is voted on beside this champion" in votes_asked(2)
    assert votes_asked(1) == "whether 65% of votes prefer it or 50%, at most 5% of verdicts wrong"
