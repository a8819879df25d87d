"""Pooling over windows and over whole images or sequences."""

from __future__ import annotations

from functools import reduce

import numpy as np

from unitrain.backends.numpy.memory import in_order_of
from unitrain.backends.numpy.registry import Array, Context, Gradients, Parameters, Result, implements
from unitrain.backends.numpy.window import Windows, as_image
from unitrain.spec.layers.pool import (
    AveragePool1d,
    AveragePool2d,
    AveragePool3d,
    GlobalAveragePool,
    GlobalMaxPool,
    MaxPool1d,
    MaxPool2d,
    MaxPool3d,
)


@implements(MaxPool1d, MaxPool2d, MaxPool3d)
def max_pool(layer: MaxPool1d | MaxPool2d | MaxPool3d, context: Context, parameters: Parameters, x: Array) -> Result:
    """The largest of the taps, padding being -infinity; dy goes to the first tap, by rows, that equals y."""
    windows = Windows.of(layer, context.node.input_shapes[0])
    padded = windows.pad(as_image(x), -np.inf)
    y = windows.largest(padded)

    def backward(dy: Array) -> Gradients:
        dy = in_order_of(y, dy.reshape(y.shape))
        # What lies in no window stays zero; the rest is written anew where each lies in one.
        d_padded = context.zeros_like("dx", padded) if windows.disjoint else np.zeros_like(padded)
        open_ = np.ones_like(y, np.bool_)  # windows whose maximum has not been met yet
        for view, target in zip(windows.taps(padded), windows.taps(d_padded), strict=True):
            first = view == y
            first &= open_
            open_ ^= first
            if windows.disjoint:
                np.multiply(dy, first, out=target)
            else:
                target += dy * first
        return (windows.crop(d_padded).reshape(x.shape),), {}

    return y.reshape(len(x), *context.node.output_shape), backward


@implements(AveragePool1d, AveragePool2d, AveragePool3d)
def average_pool(
    layer: AveragePool1d | AveragePool2d | AveragePool3d, context: Context, parameters: Parameters, x: Array
) -> Result:
    """Sum of the taps / count, count being the taps that are not padding: each of them gets dy / count."""
    windows = Windows.of(layer, context.node.input_shapes[0])
    image = as_image(x)
    padded = windows.pad(image)
    inside = windows.pad(np.ones((1, *image.shape[1:-1], 1), x.dtype))
    inverse_count = 1 / reduce(np.add, windows.taps(inside))
    y = reduce(np.add, windows.taps(padded)) * inverse_count

    def backward(dy: Array) -> Gradients:
        share = in_order_of(y, dy.reshape(y.shape)) * inverse_count
        d_padded = np.zeros_like(padded)
        for target in windows.taps(d_padded):
            target += share
        return (windows.crop(d_padded).reshape(x.shape),), {}

    return y.reshape(len(x), *context.node.output_shape), backward


@implements(GlobalAveragePool)
def global_average_pool(layer: GlobalAveragePool, context: Context, parameters: Parameters, x: Array) -> Result:
    """Mean of all positions: each gets dy / positions."""
    axes = tuple(range(1, x.ndim - 1))
    y = x.mean(axis=axes, keepdims=True)
    positions = x[0, ..., 0].size

    def backward(dy: Array) -> Gradients:
        return (np.broadcast_to(dy.reshape(y.shape) * (1 / positions), x.shape),), {}

    return y.reshape(len(x), *context.node.output_shape), backward


@implements(GlobalMaxPool)
def global_max_pool(layer: GlobalMaxPool, context: Context, parameters: Parameters, x: Array) -> Result:
    """Largest of all positions: the first that has it gets dy."""
    rows = x.reshape(len(x), -1, x.shape[-1])
    first = rows.argmax(axis=1)[:, None]

    def backward(dy: Array) -> Gradients:
        dx = np.zeros_like(rows)
        np.put_along_axis(dx, first, dy.reshape(first.shape), axis=1)
        return (dx.reshape(x.shape),), {}

    return np.take_along_axis(rows, first, axis=1).reshape(len(x), *context.node.output_shape), backward
