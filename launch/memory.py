"""How a process that trains treats the memory that it frees."""

import ctypes
import os
import sys

# glibc, malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
    """Let this process keep the memory it frees for its own next allocations; False if it cannot.

    A training step on the CPU allocates its temporary arrays, gigabytes of them, and frees them. By
    default glibc hands every large one back to the system, which has to clear and map the pages
    anew in the next step: more than a third of a step's time (docs/performance.md). The process
    then stays as large as it was at its peak. Call it first, before libraries start threads. Does
    nothing without glibc, and where the user set the allocator by GLIBC_TUNABLES.
    """
    if sys.platform != "linux" or "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    # One arena: the others are too small for arrays and hold back what one thread freed from
    # the next.
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_ARENA_MAX, 1))
    return all([mallopt(name, value) == 1 for name, value in settings])
