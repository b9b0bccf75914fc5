"""The probability of each word as the pages show it: in four steps, from sure to guessing."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# A word at least this probable is shown as step 0 (sure), 1, 2; any other as step 3.
_STEPS = (0.75, 0.5, 0.25)
STEP_NAMES = ("sure", "fairly sure", "unsure", "guessing")


@dataclass(frozen=True, slots=True)
class ShownWord:
    text: str
    probability: float

    @property
    def percent(self) -> int:
        return percent_of(self.probability)

    @property
    def step(self) -> int:
        """0 (sure) to 3 (guessing)."""
        return sum(self.probability < least for least in _STEPS)

    @property
    def step_name(self) -> str:
        return STEP_NAMES[self.step]


def percent_of(share: float) -> int:
    return round(100 * share)


def shown_words(words: Iterable[Mapping[str, object]]) -> list[ShownWord]:
    """Returns the words of `Caption.words`, ready to be shown."""
    return [ShownWord(text=str(word["text"]), probability=float(str(word["probability"]))) for word in words]
