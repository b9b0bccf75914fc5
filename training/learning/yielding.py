"""Training gives way: whatever else wants the processor gets most of it.

`nice` alone does not do it where every process session is a scheduling group of its own (autogroup, sched(7)): there
it only weighs processes of one session, so the group is made as nice, too. A group's niceness stays when a run ends
and holds for all that are in it, web server included, so the trainer first leaves for a session of its own. Not
SCHED_IDLE: on a machine that is always busy a trainer with it was not seen to get anywhere.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from pathlib import Path

_AUTOGROUP = Path("/proc/self/autogroup")
_PR_SET_PDEATHSIG = 1  # prctl(2)


def yield_processor(niceness: int) -> None:
    """Put this process, in a session of its own, behind others of the machine, 0 (not) to 19 (behind all).

    What the system does not know or allow is left out.
    """
    with contextlib.suppress(OSError):
        os.nice(niceness - os.nice(0))
    if os.getsid(0) != os.getpid():
        try:
            os.setsid()
        except PermissionError:
            return  # it leads a process group in a session with others, who are not to suffer
        # It is in no group any more that is killed as a whole: it ends with its parent all the same.
        with contextlib.suppress(AttributeError):  # Linux alone has it
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    with contextlib.suppress(OSError):
        _AUTOGROUP.write_text(str(niceness), encoding="ascii")
