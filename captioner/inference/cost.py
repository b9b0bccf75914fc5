"""How long will a batch take? A line through the recent ones."""

from collections.abc import Iterable

FORGETTING = 0.9  # A batch counts this much less with each later one: about the last ten matter.


class CostModel:
    """Weighted least-squares fit of `seconds = per_row * rows + per_batch`, both non-negative.

    Observations fade exponentially; those of `prior` (warm-up) never do, so that the slope stays known while
    every batch has the same size. With no observation at all the prediction is 0.
    """

    def __init__(self, prior: Iterable[tuple[int, float]] = ()) -> None:
        self._prior = _Sums()
        self._recent = _Sums()
        for rows, seconds in prior:
            self._prior.add(rows, seconds)
        self.per_row, self.per_batch = _fit(self._prior, self._recent)

    def start_over(self, max_rows: int) -> "CostModel":
        """A model for other weights: it predicts the same up to `max_rows`, and forgets that as it learns."""
        successor = CostModel()
        for rows in (1, max_rows):
            successor.observe(rows, self.predict(rows))
        return successor

    def observe(self, rows: int, seconds: float) -> None:
        """Learn that a batch of `rows` rows took `seconds`."""
        self._recent.decay(FORGETTING)
        self._recent.add(rows, seconds)
        self.per_row, self.per_batch = _fit(self._prior, self._recent)

    def predict(self, rows: int) -> float:
        """Seconds that a batch of `rows` rows should take; 0 for none."""
        return self.per_row * rows + self.per_batch if rows else 0.0


class _Sums:
    """The sufficient statistics of a line fit: weight, sums of n, t, n*n and n*t."""

    def __init__(self) -> None:
        self.values = [0.0] * 5

    def add(self, rows: int, seconds: float) -> None:
        terms = (1.0, rows, seconds, rows * rows, rows * seconds)
        self.values = [value + term for value, term in zip(self.values, terms, strict=True)]

    def decay(self, factor: float) -> None:
        self.values = [value * factor for value in self.values]


def _fit(*parts: _Sums) -> tuple[float, float]:
    weight, n, t, nn, nt = (sum(values) for values in zip(*(part.values for part in parts), strict=True))
    if not weight:
        return 0.0, 0.0
    variance = weight * nn - n * n
    if variance < 1e-9 * weight * nn:
        # All batches had the same size: all we know is their mean time per row.
        return t / n, 0.0
    slope = (weight * nt - n * t) / variance
    if slope < 0:
        return 0.0, t / weight
    intercept = (t - slope * n) / weight
    return (slope, intercept) if intercept >= 0 else (nt / nn, 0.0)
