"""Layers for tables of numbers."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from unitrain.backends.keras.registry import Context, KerasTensor, implements, saved
from unitrain.spec.layers import FeatureTokens


@saved
class NumberTokens(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """A token for each number: ``[batch, feature]`` to ``[batch, feature, width]``.

    In 16 bits it computes in float32, so that sums over the batch are rounded once.
    """

    def __init__(self, width: int, shifts: bool, **options: Any) -> None:
        super().__init__(**options)
        self.width, self.shifts = width, shifts

    def build(self, input_shape: Any) -> None:
        """Make the variables."""
        shape = (input_shape[-1], self.width)
        self.kernel = self.add_weight(shape=shape, name="kernel")
        self.bias = self.add_weight(shape=shape, initializer="zeros", name="bias") if self.shifts else None

    def call(self, x: Any) -> Any:
        """Scale and shift the direction of each feature."""
        wide = tf.float64 if x.dtype == tf.float64 else tf.float32
        y = tf.cast(x, wide)[..., None] * tf.cast(tf.convert_to_tensor(self.kernel), wide)
        if self.bias is not None:
            y += tf.cast(tf.convert_to_tensor(self.bias), wide)
        return tf.cast(y, x.dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Append the width."""
        return (*input_shape, self.width)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {**super().get_config(), "width": self.width, "shifts": self.shifts}


@implements(FeatureTokens)
def feature_tokens(layer: FeatureTokens, context: Context, x: KerasTensor) -> KerasTensor:
    """Keras has no such layer."""
    weights = {"kernel": "kernel", **({"bias": "bias"} if layer.use_bias else {})}
    return context.apply(NumberTokens, x, weights=weights, width=layer.width, shifts=layer.use_bias)
