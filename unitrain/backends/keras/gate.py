"""Gated linear units."""

from __future__ import annotations

import keras

from unitrain.backends.keras.activation import gelu_exact
from unitrain.backends.keras.registry import Context, KerasTensor, implements
from unitrain.spec.layers import Glu


@implements(Glu)
def glu(layer: Glu, context: Context, x: KerasTensor) -> KerasTensor:
    """A product with an activation."""
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    if layer.gate != "identity":
        function = gelu_exact if layer.gate == "gelu" else layer.gate
        b = context.apply(keras.layers.Activation, b, part="gate", activation=function)
    return keras.ops.multiply(a, b)
