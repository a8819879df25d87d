"""What this machine is called, how much of it this process may use and has used, and its memory. Any floor may ask."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from pathlib import Path
from typing import Any


def cpu_line(label: str) -> str:
    """Read a line of the first processor from /proc/cpuinfo, where there is one."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(label)), "")


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe() -> dict[str, Any]:
    """Return what the machine is called: processor, processors, memory, caches, system, BLAS, and how busy it is."""
    described: dict[str, Any] = {
        "processor": cpu_line("model name") or platform.processor() or platform.machine(),
        "processors": processors(),
        "system": platform.platform(),
        "memory": _memory(),
        "caches": caches(),
        "blas": _blas(),
    }
    if hasattr(os, "getloadavg"):
        described["load"] = round(os.getloadavg()[0], 2)
    return {key: value for key, value in described.items() if value}


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


def caches() -> dict[str, str]:
    """Return the caches of the first processor: level and kind to size."""
    found = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
        except OSError:
            continue
        found[f"L{level}{'' if kind == 'Unified' else kind[0].lower()}"] = size
    return found


def _blas() -> str:
    import numpy as np  # noqa: F401  # its BLAS is asked for
    from threadpoolctl import threadpool_info

    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    return ", ".join(
        f"{pool['internal_api']} {pool.get('version') or ''} {pool.get('architecture') or ''}".strip() for pool in pools
    )


def reset_peak_memory() -> int | None:
    """Start a new peak of the process' memory; return what it holds now, in bytes, or None where that is not told.

    Linux keeps the peak of the resident set, and starts anew when 5 is written to ``clear_refs`` (proc(5)). What the C
    library has kept of freed memory is given back first, or what is allocated next would not show.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
    if trim is not None:
        trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return _status("VmRSS:")


def peak_memory() -> int | None:
    """Return the peak of the process' memory since `reset_peak_memory`, in bytes."""
    return _status("VmHWM:")


def _status(label: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(label)), None)


def available_memory() -> int:
    """Return how many bytes may be used before others are pushed out, as far as the system tells.

    No more than this process may have where it is limited (``ulimit -v``).
    """
    return min(_free_memory(), _room())


def _free_memory() -> int:
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 2**62  # a system that does not tell: as if there were enough


def _room() -> int:
    """Return how much the address space of this process may still grow."""
    try:
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit == resource.RLIM_INFINITY:
            return 2**62
        with open("/proc/self/statm", encoding="ascii") as line:
            return max(limit - int(line.read().split()[0]) * os.sysconf("SC_PAGE_SIZE"), 0)
    except (ImportError, OSError, ValueError):
        return 2**62
