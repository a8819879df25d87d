"""Sums for gradients: over leading axes, over axes that were stretched, of rows with one number."""

from __future__ import annotations

import numpy as np

from unitrain.backends.numpy.registry import Array


def sum_leading(x: Array, kept: int) -> Array:
    """Sum over all but the last ``kept`` axes, one axis at a time.

    One at a time is both faster than all at once and more accurate: rounding errors grow with the sum of the
    extents, not with their product.
    """
    while x.ndim > kept:
        x = x.sum(axis=0)
    return x


def sum_to_channel(x: Array) -> Array:
    """Sum over all axes but the last: ``[..., channel]`` to ``[channel]``."""
    return sum_leading(x, 1)


def sum_stretched(dy: Array, shape: tuple[int, ...]) -> Array:
    """Sum a gradient over the axes along which an input of ``shape`` was stretched."""
    axes = tuple(axis for axis, (wide, own) in enumerate(zip(dy.shape, shape, strict=True)) if wide != own)
    return dy.sum(axis=axes, keepdims=True) if axes else dy


def sum_by_index(dy: Array, index: Array, rows: int) -> Array:
    """Sum the rows of ``dy`` ``[count, ...]`` that have one index: ``[rows, ...]``, the transpose of looking up."""
    total = np.zeros((rows, *dy.shape[1:]), dy.dtype)
    if index.size:
        # Equal indices are brought together by sorting, then each run is summed.
        order = np.argsort(index, kind="stable")
        values, starts = np.unique(index[order], return_index=True)
        total[values] = np.add.reduceat(dy[order], starts, axis=0)
    return total
