"""Layers that move elements and compute nothing."""

from __future__ import annotations

import numpy as np

from unitrain.backends.onnx.emitter import LayerEmitter, Value
from unitrain.backends.onnx.registry import implements
from unitrain.backends.onnx.resize import by_matrices
from unitrain.backends.onnx.window import combined, gathered, unflattened
from unitrain.spec.layers.shape import Flatten, Padding, Permute, Reshape, Upsample1d, Upsample2d


@implements(Flatten, Reshape)
def rearrange(layer: Flatten | Reshape, b: LayerEmitter, x: Value) -> Value:
    """The same elements in the spec's order, another shape."""
    if b.node.output_shape == x.shape:
        return x
    if isinstance(layer, Flatten):
        return b.value(b.op("Flatten", b.in_order(x), axis=1))
    return b.value(b.reshaped(b.in_order(x), b.node.output_shape))


@implements(Permute)
def permute(layer: Permute, b: LayerEmitter, x: Value) -> Value:
    """From the layout the value is in straight into the wanted order."""
    order = [0, *(x.axis(axis + 1, x.layout) for axis in layer.axes)]
    tensor = x.forms[x.layout]
    return b.value(tensor if order == sorted(order) else b.op("Transpose", tensor, perm=order))


@implements(Padding)
def padding(layer: Padding, b: LayerEmitter, x: Value) -> Value:
    """In either layout."""
    amounts = [(0, 0)] * x.rank
    for axis, pads in enumerate(layer.all_amounts(len(x.shape)), start=1):
        amounts[x.axis(axis, x.layout)] = pads
    if not any(map(any, amounts)):
        return x
    inputs = [x.forms[x.layout], b.integers([pads[side] for side in (0, 1) for pads in amounts])]
    if layer.mode == "constant" and layer.value != 0:
        inputs.append(b.number(layer.value))
    return b.value(b.op("Pad", *inputs, mode=layer.mode), x.layout)


@implements(Upsample1d, Upsample2d)
def upsample(layer: Upsample1d | Upsample2d, b: LayerEmitter, x: Value) -> Value:
    """``Resize`` where it is exact; elsewhere by indices, and bilinear by matrices.

    onnxruntime has no ``Resize`` in float64, and computes where an output lies in float32: at factors that are no
    powers of two it is off by more than rounding.
    """
    if max(layer.factor) == 1:
        return x
    bilinear = isinstance(layer, Upsample2d) and layer.interpolation == "bilinear"
    if bilinear and (b.double or any(factor & (factor - 1) for factor in layer.factor)):
        height, width, _ = b.node.output_shape
        return by_matrices(b, x, (height, width))
    if b.double:
        along = [np.arange(size * times)[:, None] // times for size, times in zip(x.shape, layer.factor, strict=False)]
        return unflattened(b, gathered(b, x, combined(x.shape[:-1], along)))
    how = (
        {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
        if bilinear
        else {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    )
    scales = b.graph.constant(np.array([1, 1, *layer.factor], dtype=np.float32))
    return b.value(b.op("Resize", b.first(x), "", scales, **how), "channels_first")
