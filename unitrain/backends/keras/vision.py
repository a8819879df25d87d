"""Parts of vision models."""

from __future__ import annotations

from typing import Any

import keras

from unitrain.backends.keras.registry import Context, KerasTensor, computes_wide, implements, saved
from unitrain.spec.layers import ClassToken, LayerScale


@implements(LayerScale)
def layer_scale(layer: LayerScale, context: Context, x: KerasTensor) -> KerasTensor:
    """Keras has none."""
    return context.apply(ChannelScale, x, weights={"scale": "scale"}, wide=True)


@implements(ClassToken)
def class_token(layer: ClassToken, context: Context, x: KerasTensor) -> KerasTensor:
    """A dense layer of a single one, which gives each sample the token."""
    one = keras.ops.ones_like(x[:, :1, :1])
    width = context.node.input_shapes[0][-1]
    token = context.apply(
        keras.layers.Dense, one, part="token", weights={"token": "kernel"}, units=width, use_bias=False
    )
    return context.apply(keras.layers.Concatenate, [token, x], axis=1)


@saved
class ChannelScale(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Multiplies each channel by a learned factor."""

    def build(self, input_shape: Any) -> None:
        """Make the variable."""
        self.scale = self.add_weight(shape=(input_shape[-1],), initializer="ones", name="scale")

    def call(self, x: Any) -> Any:
        """Scale ``[batch, ..., channel]``."""
        return x * self.scale


computes_wide(ChannelScale)
