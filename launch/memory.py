"""How a process that trains treats the memory that it frees."""

import ctypes
import importlib.metadata
import importlib.util
import os
import pkgutil
import sys
from pathlib import Path

# glibc, malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
# What drivers of NVIDIA, AMD and Google show below /dev, and Windows' own below WSL.
_ACCELERATORS = ("nvidia[0-9]*", "kfd", "accel*", "vfio/[0-9]*", "dxg")


def keep_freed_memory() -> bool:
    """Let this process keep the memory it frees for its own next allocations; False if it cannot.

    A training step on the CPU allocates its temporary arrays, gigabytes of them, and frees them. By
    default glibc hands every large one back to the system, which has to clear and map the pages
    anew in the next step: more than a third of a step's time (docs/performance.md). The process
    then stays as large as it was at its peak. Call it first, before libraries start threads. Does
    nothing without glibc, where the user set the allocator by GLIBC_TUNABLES, and where an
    accelerator steps: one arena would only make the threads that load wait for each other.
    """
    if not computes_on_cpu():
        return False
    if sys.platform != "linux" or "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    # One arena: the others are too small for arrays and hold back what one thread freed from
    # the next.
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_ARENA_MAX, 1))
    return all([mallopt(name, value) == 1 for name, value in settings])


def computes_on_cpu(devices: Path = Path("/dev")) -> bool:
    """Whether jax is going to compute on the CPU; told without starting it, which takes threads."""
    chosen = os.environ.get("JAX_PLATFORMS")
    if chosen:
        return chosen.split(",")[0] == "cpu"
    plugins = importlib.util.find_spec("jax_plugins")
    places = list(plugins.submodule_search_locations or []) if plugins else []
    has_plugin = (
        any(pkgutil.iter_modules(places))
        or bool(importlib.metadata.entry_points(group="jax_plugins"))
        or importlib.util.find_spec("libtpu") is not None
    )
    return not (has_plugin and any(any(devices.glob(name)) for name in _ACCELERATORS))
