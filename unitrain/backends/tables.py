"""Fixed numbers of layers, in float64: angles, waves and slopes that every backend brings to its own precision."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Table = npt.NDArray[np.float64]


def rotary_angles(length: int, channels: int, base: float) -> Table:
    """Return ``[length, channels / 2]``: ``p * base ** (-2 i / channels)`` (Su et al. 2021, equation 15)."""
    frequencies = base ** (-2.0 * np.arange(channels // 2) / channels)
    return np.asarray(np.arange(length)[:, None] * frequencies)


def sinusoidal_waves(shape: Sequence[int], base: float, layout: str) -> Table:
    """Return ``[length, channels]``: sines and cosines of `rotary_angles` (Vaswani et al. 2017, section 3.5).

    ``layout`` is ``interleaved``, or ``half`` for all sines first.
    """
    length, channels = shape
    angles = rotary_angles(length, channels, base)
    if layout == "half":
        return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    return np.stack([np.sin(angles), np.cos(angles)], axis=2).reshape(length, channels)


def alibi_slopes(heads: int) -> Table:
    """Return the slope of each head: ``2 ** (-8 h / heads)`` for h = 1 .. heads (Press et al. 2022, section 3).

    Where ``heads`` is no power of two, those of the power below, and then every other one of the next power.
    """
    whole = 2 ** int(np.log2(heads))
    slopes = 2.0 ** (-8.0 * np.arange(1, whole + 1) / whole)
    between = 2.0 ** (-8.0 * np.arange(1, 2 * whole + 1, 2) / (2 * whole))
    return np.concatenate([slopes, between[: heads - whole]])


def alibi_bias(heads: int, length: int) -> Table:
    """Return ``[heads, length, length]``: -slope * abs(i - j)."""
    distance = np.abs(np.arange(length)[:, None] - np.arange(length))
    return np.asarray(-alibi_slopes(heads)[:, None, None] * distance)


def causal_mask(queries: int, keys: int) -> npt.NDArray[np.bool_]:
    """Return ``[queries, keys]``: True where position i may attend to position j <= i."""
    return np.tri(queries, keys, dtype=bool)
