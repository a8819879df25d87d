"""Layers for tables of numbers."""

from __future__ import annotations

from unitrain.backends.onnx.emitter import LayerEmitter, Value
from unitrain.backends.onnx.registry import implements
from unitrain.spec.layers.tabular import FeatureTokens


@implements(FeatureTokens)
def feature_tokens(layer: FeatureTokens, b: LayerEmitter, x: Value) -> Value:
    """``Mul`` and ``Add`` of ``[batch, feature, 1]`` and ``(feature, width)``."""
    y = b.op("Mul", b.reshaped(b.last(x), [*x.shape, 1]), b.parameter("kernel"))
    for bias in b.optional("bias"):
        y = b.op("Add", y, bias)
    return b.value(y)
