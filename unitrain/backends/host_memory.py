"""What the process keeps of memory that is freed, for the backends that allocate anew in each step."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

# Parameters of mallopt, from glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3

KEPT_BYTES = 1 << 30


@cache
def keep_freed_memory() -> bool:
    """Let the C library keep up to `KEPT_BYTES` of what is freed; return whether it could be told so.

    Every training step allocates the same large arrays again. By default glibc gives them back to the kernel when they
    are freed, and the kernel clears each page before it hands it out anew: a third of the whole step, measured on small
    convolutional networks with NumPy, and a fifth with torch. The setting holds for the whole process; other C
    libraries are left alone.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    told = [bool(mallopt(parameter, KEPT_BYTES)) for parameter in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD)]
    return all(told)
