"""Training gives way: whatever else wants the processor gets nearly all of it.

`nice` alone does not do it where every process session is a scheduling group of its own (autogroup, sched(7)): there
it only weighs processes of one session, so the group is made as nice as can be, too. Not SCHED_IDLE: on a machine
that is always busy a trainer with it was not seen to get anywhere.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_AUTOGROUP = Path("/proc/self/autogroup")
_NICEST = 19


def yield_processor() -> None:
    """Put this process behind all others of the machine; what the system does not know or allow is left out."""
    with contextlib.suppress(OSError):
        os.nice(_NICEST - os.nice(0))
    with contextlib.suppress(OSError):
        _AUTOGROUP.write_text(str(_NICEST), encoding="ascii")
