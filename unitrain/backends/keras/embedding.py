"""Embedding tables. Indices are checked where data enters the program, see `unitrain.backends.indices`."""

from __future__ import annotations

import keras

from unitrain.backends.keras.registry import Context, KerasTensor, implements
from unitrain.spec.layers import Embedding


@implements(Embedding)
def embedding(layer: Embedding, context: Context, index: KerasTensor) -> KerasTensor:
    """Keras' own layer."""
    return context.apply(
        keras.layers.Embedding,
        index,
        weights={"table": "embeddings"},
        input_dim=layer.vocabulary,
        output_dim=layer.width,
    )
