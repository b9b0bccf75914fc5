"""Training gives way: whatever else wants the processor gets it first.

`nice` alone does not do it where every process session is a scheduling group of its own (autogroup, sched(7)): there
it only weighs processes of one session. So the group is made as nice as can be, too, and the scheduler is told that
this is work for idle time.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_AUTOGROUP = Path("/proc/self/autogroup")


def yield_processor() -> None:
    """Put this process behind all others of the machine; what the system does not know or allow is left out."""
    with contextlib.suppress(OSError):
        os.nice(19 - os.nice(0))
    with contextlib.suppress(OSError):
        _AUTOGROUP.write_text("19", encoding="ascii")
    if hasattr(os, "SCHED_IDLE"):
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
