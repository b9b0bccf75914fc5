"""How many CPU cores this process may use, told without torch."""

import os
from pathlib import Path

_CGROUP_CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")


def core_count() -> int:
    """The cores that the scheduler gives this process, bounded by a container's CPU limit; at least one."""
    has_affinity = hasattr(os, "sched_getaffinity")
    return cores_bounded(len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1)


def cores_bounded(cores: int) -> int:
    """`cores`, or fewer where a container's CPU limit allows fewer; at least one."""
    if _CGROUP_CPU_LIMIT.is_file():
        # "max 100000" or "150000 100000": microseconds of CPU time per period. More threads get throttled.
        quota, period = _CGROUP_CPU_LIMIT.read_text(encoding="ascii").split()
        if quota != "max":
            cores = min(cores, int(quota) // int(period))
    return max(1, cores)
