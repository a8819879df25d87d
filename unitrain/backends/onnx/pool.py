"""Pooling over windows and over whole images or sequences."""

from __future__ import annotations

import numpy as np

from unitrain.backends.onnx.conv import onnx_pads
from unitrain.backends.onnx.emitter import LayerEmitter, Value
from unitrain.backends.onnx.registry import implements
from unitrain.backends.onnx.window import OUTSIDE, combined, gathered, sliding, unflattened
from unitrain.spec.layers.conv import WindowedLayer
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


def _pads_fit(layer: WindowedLayer, x: Value) -> bool:
    """Whether onnxruntime pools with these pads: it wants them smaller than the window, dilation not counted."""
    pads = layer.pads(x.shape)
    return all(max(amounts) < window for amounts, window in zip(pads, layer.kernel_size, strict=True))


def _pooled(layer: WindowedLayer, b: LayerEmitter, kind: str, tensor: str, pads: list[int]) -> Value:
    attributes = {"dilations": list(layer.dilation)} if max(layer.dilation) > 1 else {}
    y = b.op(kind, tensor, kernel_shape=list(layer.kernel_size), strides=list(layer.strides), pads=pads, **attributes)
    return b.value(y, "channels_first")


@implements(MaxPool1d, MaxPool2d, MaxPool3d)
def max_pool(layer: MaxPool1d | MaxPool2d | MaxPool3d, b: LayerEmitter, x: Value) -> Value:
    """ONNX's padding never wins either; where onnxruntime does not take it, -infinity is padded before."""
    pads = onnx_pads(layer.pads(x.shape))
    if _pads_fit(layer, x):
        return _pooled(layer, b, "MaxPool", b.first(x), pads)
    axes = layer.axes
    amounts = [0, 0, *pads[:axes], 0, 0, *pads[axes:]]
    padded = b.op("Pad", b.first(x), b.integers(amounts), b.number(-np.inf))
    return _pooled(layer, b, "MaxPool", padded, [0] * len(pads))


@implements(AveragePool1d, AveragePool2d, AveragePool3d)
def average_pool(layer: AveragePool1d | AveragePool2d | AveragePool3d, b: LayerEmitter, x: Value) -> Value:
    """Padding is not counted, as ONNX has it by default; the operator knows dilation from opset 19 on."""
    pads = layer.pads(x.shape)
    if not b.double and _pads_fit(layer, x) and (b.opset >= 19 or max(layer.dilation) == 1):
        return _pooled(layer, b, "AveragePool", b.first(x), onnx_pads(pads))
    windows = zip(
        x.shape,
        layer.positions(x.shape),
        layer.kernel_size,
        layer.strides,
        layer.dilation,
        (before for before, _ in pads),
        strict=False,
    )
    index = combined(x.shape[:-1], [sliding(*axis) for axis in windows])
    total = b.reduced("ReduceSum", gathered(b, x, index), [2], keep=False)
    count = (index != OUTSIDE).sum(axis=1, keepdims=True)
    return unflattened(b, b.op("Div", total, b.floats(count)))


@implements(GlobalAveragePool, GlobalMaxPool)
def global_pool(layer: GlobalAveragePool | GlobalMaxPool, b: LayerEmitter, x: Value) -> Value:
    """Over all axes but batch and channel, in either layout."""
    kind = "ReduceMean" if isinstance(layer, GlobalAveragePool) else "ReduceMax"
    axes = [x.axis(axis, x.layout) for axis in range(1, x.rank - 1)]
    return b.value(b.reduced(kind, x.forms[x.layout], axes, keep=layer.keep_axes), x.layout)
