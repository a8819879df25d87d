"""Dropout, which does nothing in inference."""

from __future__ import annotations

from unitrain.backends.onnx.emitter import LayerEmitter, Value
from unitrain.backends.onnx.registry import implements
from unitrain.spec.layers.dropout import Dropout


@implements(Dropout)
def dropout(layer: Dropout, b: LayerEmitter, x: Value) -> Value:
    """The input."""
    return x
