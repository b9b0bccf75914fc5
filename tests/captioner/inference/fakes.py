"""A model whose every batch is under the test's control, and a clock that only the test moves."""

import threading
import time
from collections.abc import Callable

import torch

from captioner.inference.types import Candidate, DecodingParameters, Prediction, Seen

PATIENCE = 30.0  # Seconds after which a test that hangs fails.


class Clock:
    """Stands in for the `time` module; stands still between calls of `advance`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class FakePredictor:
    """Captions photo n with "n". When gated, every batch waits for `let` before it is answered."""

    def __init__(self, model_version: str = "fake-1", *, gated: bool = False) -> None:
        self.model_version = model_version
        self.batches: list[list[int]] = []
        self.parameters: list[DecodingParameters] = []
        self.on_predict: Callable[[list[int]], None] = lambda _: None
        self._entered = threading.Semaphore(0)
        self._permits = threading.Semaphore(0)
        self._gated = gated

    encoder = ""

    def look(self, pixels: torch.Tensor, parameters: DecodingParameters) -> list[Seen]:
        numbers = [int(photo.flatten()[0]) for photo in pixels]
        self.batches.append(numbers)
        self.parameters.append(parameters)
        self._entered.release()
        if self._gated:
            assert self._permits.acquire(timeout=PATIENCE)
        self.on_predict(numbers)
        return [Seen((Candidate(str(number), (), -1.0, (-1.0,)),)) for number in numbers]

    def wait_entered(self) -> None:
        """Return once one more batch has reached the model."""
        assert self._entered.acquire(timeout=PATIENCE)

    def let(self, batches: int = 1) -> None:
        """Let that many batches through the gate."""
        self._permits.release(batches)

    def open(self) -> None:
        """Let every batch through from now on."""
        self._gated = False
        self.let()


def photo(number: int, size: int = 1) -> torch.Tensor:
    return torch.full((3, size, size), float(number))


def later(seconds: float = PATIENCE) -> float:
    return time.monotonic() + seconds


def caption(prediction: Prediction) -> str:
    return prediction.candidates[0].caption
