"""Layers that leave something out in training, and do nothing in inference."""

from __future__ import annotations

from unitrain.backends.onnx.emitter import LayerEmitter, Value
from unitrain.backends.onnx.registry import implements
from unitrain.spec.layers.dropout import Dropout, StochasticDepth


@implements(Dropout, StochasticDepth)
def dropout(layer: Dropout | StochasticDepth, b: LayerEmitter, x: Value) -> Value:
    """The input."""
    return x
