"""How far something is that takes its time, for whoever waits for it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

Tick = Callable[[str, int, int], None]  # tick(stage, done, total); what it raises ends the work


def untold(stage: str, done: int, total: int) -> None:
    """The tick of whoever does not ask."""


class Progress:
    """A bar on a terminal; in a log, a line now and then."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._stage = ""

    def __enter__(self) -> Progress:
        return self

    def tick(self, stage: str, done: int, total: int) -> None:
        if stage != self._stage:
            self.__exit__()
            self._stage = stage
            self._bar = tqdm(
                total=total, desc=stage, unit="photo", mininterval=0.1 if sys.stderr.isatty() else 20
            )
        self._bar.update(done - self._bar.n)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
