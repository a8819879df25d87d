"""Memory that is used again: what the process keeps when it is freed, and arrays kept from step to step."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Hashable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

# Parameters of mallopt, from glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3

KEPT_BYTES = 1 << 30


@cache
def keep_freed_memory() -> bool:
    """Let the C library keep up to `KEPT_BYTES` of what is freed; return whether it could be told so.

    Every training step allocates the same large arrays again. By default glibc gives them back to the kernel
    when they are freed, and the kernel clears each page before it hands it out anew: a third of the whole
    step, measured on small convolutional networks. The setting holds for the whole process; other C libraries
    are left alone.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    told = [bool(mallopt(parameter, KEPT_BYTES)) for parameter in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD)]
    return all(told)


def in_order_of(like: npt.NDArray[Any], x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Bring ``x``, of the same shape, into the memory order of ``like``: arithmetic on mixed orders is slow."""
    if x.strides == like.strides:
        return x
    result = np.empty_like(like, dtype=x.dtype)
    result[...] = x
    return result


class Workspace:
    """Arrays that are made once and used again by the same place of every step.

    Only for steps that follow one another: what was written in one is gone in the next. One workspace serves one
    thread.
    """

    def __init__(self) -> None:
        self._arrays: dict[tuple[Any, ...], npt.NDArray[Any]] = {}

    def zeros(self, key: Hashable, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Return zeros the first time, and afterwards the same array as its last user left it.

        Whoever writes the same part each time finds zeros in the rest.
        """
        array = self._arrays.get((key, "zeros"))
        if array is None or array.shape != shape or array.dtype != dtype:
            array = self._arrays[key, "zeros"] = np.zeros(shape, dtype)
        return array

    def empty(self, key: Hashable, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Return an array of any content."""
        array = self._arrays.get((key, "empty"))
        if array is None or array.shape != shape or array.dtype != dtype:
            array = self._arrays[key, "empty"] = np.empty(shape, dtype)
        return array
