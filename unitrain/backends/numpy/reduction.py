"""Sums over leading axes, for gradients by parameters."""

from __future__ import annotations

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
