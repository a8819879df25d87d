"""Fully connected layers."""

from __future__ import annotations

import keras

from unitrain.backends.keras.registry import Context, KerasTensor, implements
from unitrain.spec.layers import Dense


@implements(Dense)
def dense(layer: Dense, context: Context, x: KerasTensor) -> KerasTensor:
    """Keras' own layer: same meaning, same layout."""
    return context.apply(
        keras.layers.Dense,
        x,
        weights={"kernel": "kernel", "bias": "bias"},
        units=layer.units,
        use_bias=layer.use_bias,
    )
