"""Layers that give an image another size."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from unitrain.backends.numpy.registry import Array, Context, Gradients, Parameters, Result, implements
from unitrain.spec.layers.resize import PixelShuffle, PixelUnshuffle, Resize, linear_sources, nearest_sources


@implements(Resize)
def resize(layer: Resize, context: Context, parameters: Parameters, x: Array) -> Result:
    """The height, then the width: both interpolations act on each axis alone."""
    along = _nearest if layer.interpolation == "nearest" else _linear
    height, width, _ = context.node.output_shape
    tall, back_height = along(x, 1, height)
    y, back_width = along(tall, 2, width)
    return y, lambda dy: ((back_height(back_width(dy)),), {})


def _nearest(x: Array, axis: int, outputs: int) -> tuple[Array, Callable[[Array], Array]]:
    """``y[i] = x[s_i]``: dx[j] is the sum of dy[i] over all i with s_i = j."""
    size = x.shape[axis]
    sources = nearest_sources(size, outputs)
    return x.take(sources, axis), lambda dy: _collected(dy, axis, sources, size)


def _linear(x: Array, axis: int, outputs: int) -> tuple[Array, Callable[[Array], Array]]:
    """``y[i] = (1 - t_i) x[a_i] + t_i x[b_i]``: dx[j] sums (1 - t_i) dy[i] where a_i = j, t_i dy[i] where b_i = j."""
    size = x.shape[axis]
    below, above, shares = linear_sources(size, outputs)
    share = np.array(shares, x.dtype).reshape(-1, *(1,) * (x.ndim - 1 - axis))

    def backward(dy: Array) -> Array:
        return _collected(dy * (1 - share), axis, below, size) + _collected(dy * share, axis, above, size)

    return x.take(below, axis) * (1 - share) + x.take(above, axis) * share, backward


def _collected(dy: Array, axis: int, sources: Sequence[int], size: int) -> Array:
    """Add up the elements of an axis by their sources, which are in order: runs of equal ones are summed."""
    found, starts = np.unique(sources, return_index=True)
    dx = np.zeros((*dy.shape[:axis], size, *dy.shape[axis + 1 :]), dy.dtype)
    dx[(slice(None),) * axis + (found,)] = np.add.reduceat(dy, starts, axis)
    return dx


@implements(PixelShuffle)
def pixel_shuffle(layer: PixelShuffle, context: Context, parameters: Parameters, x: Array) -> Result:
    """Moved, and back by the inverse."""
    return _shuffled(x, layer.factor), lambda dy: ((_unshuffled(dy, layer.factor),), {})


@implements(PixelUnshuffle)
def pixel_unshuffle(layer: PixelUnshuffle, context: Context, parameters: Parameters, x: Array) -> Result:
    """Moved, and back by the inverse."""

    def backward(dy: Array) -> Gradients:
        return (_shuffled(dy, layer.factor),), {}

    return _unshuffled(x, layer.factor), backward


def _shuffled(x: Array, factor: int) -> Array:
    """``[n, h, w, (c, i, j)]`` to ``[n, (h, i), (w, j), c]``."""
    batch, height, width, channels = x.shape
    parts = x.reshape(batch, height, width, channels // factor**2, factor, factor)
    return parts.transpose(0, 1, 4, 2, 5, 3).reshape(batch, height * factor, width * factor, -1)


def _unshuffled(x: Array, factor: int) -> Array:
    """``[n, (h, i), (w, j), c]`` to ``[n, h, w, (c, i, j)]``."""
    batch, height, width, channels = x.shape
    parts = x.reshape(batch, height // factor, factor, width // factor, factor, channels)
    return parts.transpose(0, 1, 3, 5, 2, 4).reshape(batch, height // factor, width // factor, -1)
