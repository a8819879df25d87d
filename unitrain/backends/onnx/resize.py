"""Layers that give an image another size."""

from __future__ import annotations

import numpy as np

from unitrain.backends.onnx.emitter import Array, LayerEmitter, Value
from unitrain.backends.onnx.registry import implements
from unitrain.spec.layers.resize import PixelShuffle, PixelUnshuffle, Resize, linear_sources, nearest_sources


@implements(Resize)
def resize(layer: Resize, b: LayerEmitter, x: Value) -> Value:
    """By indices, bilinear by matrices: onnxruntime computes in float32 where an output of ``Resize`` lies.

    At ratios that are no powers of two it may take the next pixel.
    """
    height, width, _ = b.node.output_shape
    if layer.interpolation == "bilinear":
        return by_matrices(b, x, (height, width))
    tensor = x.forms[x.layout]
    for axis, (size, outputs) in enumerate(zip(x.shape, (height, width), strict=False), start=1):
        if size != outputs:
            sources = b.integers(nearest_sources(size, outputs))
            tensor = b.op("Gather", tensor, sources, axis=x.axis(axis, x.layout))
    return x if tensor == x.forms[x.layout] else b.value(tensor, x.layout)


def by_matrices(b: LayerEmitter, x: Value, outputs: tuple[int, int]) -> Value:
    """``H x W^T`` for each channel: each axis is interpolated by a matrix."""
    tensor = b.first(x)
    height, width, _ = x.shape
    if outputs[1] != width:
        tensor = b.op("MatMul", tensor, b.floats(_interpolation(width, outputs[1]).T))
    if outputs[0] != height:
        tensor = b.op("MatMul", b.floats(_interpolation(height, outputs[0])), tensor)
    return b.value(tensor, "channels_first")


def _interpolation(size: int, outputs: int) -> Array:
    """Return ``[outputs, size]``: the shares of an axis' elements in those of the resized one."""
    below, above, shares = map(np.array, linear_sources(size, outputs))
    matrix = np.zeros((outputs, size))
    rows = np.arange(outputs)
    np.add.at(matrix, (rows, below), 1 - shares)
    np.add.at(matrix, (rows, above), shares)
    return matrix


@implements(PixelShuffle)
def pixel_shuffle(layer: PixelShuffle, b: LayerEmitter, x: Value) -> Value:
    """The order of channels that ONNX calls column-row-depth."""
    return b.value(b.op("DepthToSpace", b.first(x), blocksize=layer.factor, mode="CRD"), "channels_first")


@implements(PixelUnshuffle)
def pixel_unshuffle(layer: PixelUnshuffle, b: LayerEmitter, x: Value) -> Value:
    """``SpaceToDepth`` has another order of channels."""
    height, width, channels = x.shape
    factor = layer.factor
    pixels = b.reshaped(b.first(x), [channels, height // factor, factor, width // factor, factor])
    squares = b.op("Transpose", pixels, perm=[0, 1, 3, 5, 2, 4])
    y = b.reshaped(squares, [channels * factor**2, height // factor, width // factor])
    return b.value(y, "channels_first")
