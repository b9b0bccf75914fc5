"""How many CPU cores this process may use, told without torch."""

import os
from pathlib import Path

_CGROUP_CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")


def core_count() -> int:
    """The cores that the scheduler gives this process, bounded by a container's CPU limit; at least one."""
    has_affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    if _CGROUP_CPU_LIMIT.is_file():
        # "max 100000" or "150000 100000": microseconds of CPU time per period.
        quota, period = _CGROUP_CPU_LIMIT.read_text(encoding="ascii").split()
        if quota != "max":
            cores = min(cores, int(quota) // int(period))
    return max(1, cores)
