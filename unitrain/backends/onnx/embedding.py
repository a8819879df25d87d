"""Embedding tables."""

from __future__ import annotations

from unitrain.backends.onnx.emitter import LayerEmitter, Value
from unitrain.backends.onnx.registry import implements
from unitrain.spec.layers.embedding import Embedding


@implements(Embedding)
def embedding(layer: Embedding, b: LayerEmitter, index: Value) -> Value:
    """Rows by number. ``Gather`` counts negative indices from the end; the program refuses them."""
    return b.value(b.op("Gather", b.parameter("table"), b.last(index), axis=0))
