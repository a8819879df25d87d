"""Arrays kept from step to step, and the order in which they lie in memory."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import numpy.typing as npt


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
