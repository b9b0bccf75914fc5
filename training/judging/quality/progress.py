"""How far an evaluation is, for whoever waits for it."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm


class Progress:
    """A bar on a terminal; in a log, a line now and then."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._what = ""

    def __enter__(self) -> Progress:
        return self

    def tick(self, what: str, done: int, total: int) -> None:
        if what != self._what:
            self.__exit__()
            self._what = what
            self._bar = tqdm(
                total=total, desc=what, unit="photo", mininterval=0.1 if sys.stderr.isatty() else 20
            )
        self._bar.update(done - self._bar.n)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
