"""Beam search over the captions of one photo: which ones go on, which are finished. No model, no torch.

The rules are those of transformers' `generate()`, which tests compare with.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Continuation:
    """The running caption number `origin`, with one token more; both numbers are natural logarithms."""

    origin: int
    token_id: int
    score: float  # of the whole caption so far
    log_probability: float  # of the token


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A caption so far. `score` sums its log-probabilities; `origin` is its place among the running before."""

    token_ids: tuple[int, ...] = ()
    log_probabilities: tuple[float, ...] = ()
    score: float = 0.0
    origin: int = 0

    def extended(self, step: Continuation) -> "Hypothesis":
        return Hypothesis(
            (*self.token_ids, step.token_id),
            (*self.log_probabilities, step.log_probability),
            step.score,
            step.origin,
        )


class Beams:
    """The `width` best captions of one photo that are still being written, and the `width` best finished ones.

    A caption is finished by one of `end_ids` or at `max_length` tokens, and then ranked by its score over its
    length to the power of `length_penalty`. With `early_stopping` the first `width` finished ones are it.
    """

    def __init__(
        self,
        width: int,
        *,
        end_ids: frozenset[int],
        max_length: int,
        length_penalty: float = 1.0,
        early_stopping: bool = False,
    ) -> None:
        self.width = width
        self.running = [Hypothesis()]
        self.finished: list[Hypothesis] = []
        self.is_done = False
        self._end_ids, self._max_length = end_ids, max_length
        self._length_penalty, self._early_stopping = length_penalty, early_stopping

    def advance(self, best: Iterable[Continuation]) -> None:
        """Take the best continuations of the running captions, best first.

        There must be enough of them that `width` do not end: width * (1 + number of `end_ids`) are.
        """
        candidates = [self.running[step.origin].extended(step) for step in best]
        if not self.is_done:
            # Lower ranks are there to run on only: a caption may not finish from behind the beam.
            ended = filter(self._has_ended, candidates[: self.width])
            self.finished = sorted((*self.finished, *ended), key=self._rank, reverse=True)[: self.width]
        going_on = (candidate for candidate in candidates if not self._has_ended(candidate))
        self.running = [candidate for candidate, _ in zip(going_on, range(self.width), strict=False)]
        if len(self.finished) == self.width:
            # A score can only fall: the best running caption, were it to end now, is the best there can be.
            self.is_done = self.is_done or (
                self._early_stopping
                or not self.running
                or self._rank(self.running[0]) <= self._rank(self.finished[-1])
            )

    def _has_ended(self, hypothesis: Hypothesis) -> bool:
        return hypothesis.token_ids[-1] in self._end_ids or len(hypothesis.token_ids) == self._max_length

    def _rank(self, hypothesis: Hypothesis) -> float:
        rank: float = hypothesis.score / len(hypothesis.token_ids) ** self._length_penalty
        return rank
