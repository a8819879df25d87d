"""Gated linear units."""

from __future__ import annotations

from unitrain.backends.onnx.activation import gelu_of
from unitrain.backends.onnx.emitter import LayerEmitter, Value
from unitrain.backends.onnx.registry import implements
from unitrain.spec.layers.gate import Glu


@implements(Glu)
def glu(layer: Glu, b: LayerEmitter, x: Value) -> Value:
    """``Mul`` of the first half, and what the gate makes of the second."""
    half, axis = x.shape[-1] // 2, x.axis(len(x.shape), x.layout)
    left, right = (
        b.op("Slice", x.forms[x.layout], b.integers([start]), b.integers([start + half]), b.integers([axis]))
        for start in (0, half)
    )
    return b.value(b.op("Mul", left, _gated(b, layer.gate, right)), x.layout)


def _gated(b: LayerEmitter, gate: str, tensor: str) -> str:
    match gate:
        case "sigmoid":
            return b.op("Sigmoid", tensor)
        case "silu":
            return b.op("Mul", tensor, b.op("Sigmoid", tensor))
        case "gelu":
            return gelu_of(b, tensor)
        case "relu":
            return b.op("Relu", tensor)
        case _:
            return tensor
