"""Embedding tables."""

from __future__ import annotations

import numpy as np

from unitrain.backends.onnx.emitter import LayerEmitter, Value
from unitrain.backends.onnx.registry import implements
from unitrain.spec.layers.embedding import Embedding


@implements(Embedding)
def embedding(layer: Embedding, b: LayerEmitter, index: Value) -> Value:
    """Rows by number. ``Gather`` counts negative indices from the end; the program refuses them."""
    rows = b.last(index)
    if layer.table_per_position:
        starts = np.arange(index.shape[-1], dtype=np.int32) * layer.vocabulary
        rows = b.op("Add", rows, b.graph.constant(starts.astype(np.int32)))
    return b.value(b.op("Gather", b.parameter("table"), rows, axis=0))
