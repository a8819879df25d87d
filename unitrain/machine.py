"""What this machine calls its processor, and how much of it this process may use. Any floor may ask."""

from __future__ import annotations

import os
from pathlib import Path


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
