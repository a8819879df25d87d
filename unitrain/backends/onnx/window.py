"""Windows by index: what layers with windows are written with where onnxruntime lacks the operator.

It has no convolution, average pooling or resizing in float64. There each window's elements are gathered by their
positions, and the layer is a product or a sum over them.
"""

from __future__ import annotations

from math import prod

import numpy as np

from unitrain.backends.onnx.emitter import Array, LayerEmitter, Value
from unitrain.spec.layers.base import Shape

OUTSIDE = -1


def sliding(size: int, outputs: int, kernel: int, stride: int, dilation: int, before: int) -> Array:
    """Return for one axis which element each tap of each window sees, ``[outputs, kernel]``, or `OUTSIDE`."""
    index = np.arange(outputs)[:, None] * stride - before + np.arange(kernel) * dilation
    return np.where((index >= 0) & (index < size), index, OUTSIDE)


def spread(size: int, outputs: int, kernel: int, stride: int, cropped: int) -> Array:
    """Return the same for a transposed convolution: which element reaches each output through each tap.

    Element i is spread by tap k to output i * stride + k - cropped.
    """
    reach = np.arange(outputs)[:, None] + cropped - np.arange(kernel)
    index = reach // stride
    return np.where((reach % stride == 0) & (index >= 0) & (index < size), index, OUTSIDE)


def combined(sizes: Shape, axes: list[Array]) -> Array:
    """Join the indices of several axes into positions of the flattened ones, ``[outputs, taps]``."""
    index = np.zeros((1, 1), np.int64)
    for size, along in zip(sizes, axes, strict=True):
        joined = index[:, None, :, None] * size + along[None, :, None, :]
        outside = (index[:, None, :, None] == OUTSIDE) | (along[None, :, None, :] == OUTSIDE)
        index = np.where(outside, OUTSIDE, joined).reshape(len(index) * len(along), -1)
    return index


def gathered(b: LayerEmitter, x: Value, index: Array) -> str:
    """Return ``[batch, outputs, taps, channel]``: the elements of ``[batch, *spatial, channel]`` at ``index``.

    What lies outside is 0, read from one position that is added behind the others.
    """
    positions, channels = prod(x.shape[:-1]), x.shape[-1]
    flat = b.last(x) if len(x.shape) == 2 else b.reshaped(b.last(x), [positions, channels])
    if (index == OUTSIDE).any():
        flat = b.op("Pad", flat, b.integers([0, 0, 0, 0, 1, 0]))
        index = np.where(index == OUTSIDE, positions, index)
    return b.op("Gather", flat, b.integers(index), axis=1)


def unflattened(b: LayerEmitter, tensor: str) -> Value:
    """Give ``[batch, outputs, ...]`` the shape of the layer's output."""
    return b.value(b.reshaped(tensor, b.node.output_shape))
