"""Where a token stands in its sequence, added to what it is."""

from __future__ import annotations

from typing import Any

import keras

from unitrain.backends.keras.registry import Context, KerasTensor, implements, saved
from unitrain.backends.tables import sinusoidal_waves
from unitrain.spec.layers import PositionEmbedding, SinusoidalPosition


@saved
class FixedPosition(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Adds sines and cosines to each position of ``[batch, length, channel]``."""

    def __init__(self, base: float, layout: str, **options: Any) -> None:
        super().__init__(**options)
        self.base, self.layout = base, layout

    def call(self, x: Any) -> Any:
        """Add them."""
        return x + sinusoidal_waves(x.shape[1:], self.base, self.layout).astype(self.compute_dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the input shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {**super().get_config(), "base": self.base, "layout": self.layout}


@implements(PositionEmbedding)
def position_embedding(layer: PositionEmbedding, context: Context, x: KerasTensor) -> KerasTensor:
    """An embedding of 0, 1, 2 ...; the sum over the batch, its gradient, is taken in float32."""
    ops = keras.ops
    positions, width = layer.parameters(*context.node.input_shapes)["table"].shape
    places = ops.cumsum(ops.ones_like(x[:1, :, 0], dtype="int32"), axis=1) - 1
    rows = context.apply(
        keras.layers.Embedding, places, weights={"table": "embeddings"}, input_dim=positions, output_dim=width
    )
    wide = "float64" if x.dtype == "float64" else "float32"
    return ops.cast(ops.cast(x, wide) + ops.cast(rows, wide), x.dtype)


@implements(SinusoidalPosition)
def sinusoidal_position(layer: SinusoidalPosition, context: Context, x: KerasTensor) -> KerasTensor:
    """Fixed numbers."""
    return context.apply(FixedPosition, x, base=layer.base, layout=layer.layout)
