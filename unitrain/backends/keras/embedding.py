"""Embedding tables. Indices are checked where data enters the program, see `unitrain.backends.indices`."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from unitrain.backends.keras.registry import Context, KerasTensor, implements, saved
from unitrain.spec.layers import Embedding


@saved
class TableStarts(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Adds to each position of the last axis where the rows of its table begin."""

    def __init__(self, rows: int, **options: Any) -> None:
        super().__init__(**options)
        self.rows = rows

    def call(self, index: Any) -> Any:
        """Turn indices into a position's table into rows of all tables."""
        return index + self.rows * tf.range(index.shape[-1], dtype=index.dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the input shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {**super().get_config(), "rows": self.rows}


@implements(Embedding)
def embedding(layer: Embedding, context: Context, index: KerasTensor) -> KerasTensor:
    """Keras' own layer."""
    if layer.table_per_position:
        index = context.apply(TableStarts, index, part="rows", rows=layer.vocabulary)
    return context.apply(
        keras.layers.Embedding,
        index,
        weights={"table": "embeddings"},
        input_dim=layer.vocabulary * layer.tables(*context.node.input_shapes),
        output_dim=layer.width,
    )
