"""Training gives way: whatever else wants the processor gets most of it.

`nice` alone does not do it where every process session is a scheduling group of its own (autogroup, sched(7)): there
it only weighs processes of one session, so the group is made as nice, too. Not SCHED_IDLE: on a machine
that is always busy a trainer with it was not seen to get anywhere.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_AUTOGROUP = Path("/proc/self/autogroup")


def yield_processor(niceness: int) -> None:
    """Put this process behind others of the machine, 0 (not) to 19 (behind all).

    What the system does not know or allow is left out.
    """
    with contextlib.suppress(OSError):
        os.nice(niceness - os.nice(0))
    with contextlib.suppress(OSError):
        _AUTOGROUP.write_text(str(niceness), encoding="ascii")
