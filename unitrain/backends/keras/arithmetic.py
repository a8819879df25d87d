"""Arithmetic with constants, and products of matrices, by operations of Keras."""

from __future__ import annotations

import keras
import numpy as np

from unitrain.backends.keras.registry import Context, KerasTensor, implements
from unitrain.spec.layers import Matmul, Power, Scale, Shift


@implements(Scale)
def scale(layer: Scale, context: Context, x: KerasTensor) -> KerasTensor:
    """Keras' own layer: its operation would call the product with a number sparse, which other layers cannot read.

    A plain number would be rounded to float32 on the way.
    """
    return context.apply(keras.layers.Rescaling, x, scale=np.float64(layer.factor))


@implements(Shift)
def shift(layer: Shift, context: Context, x: KerasTensor) -> KerasTensor:
    """A sum."""
    return keras.ops.add(x, layer.amount)


@implements(Power)
def power(layer: Power, context: Context, x: KerasTensor) -> KerasTensor:
    """A power."""
    return keras.ops.power(x, layer.exponent)


@implements(Matmul)
def matmul(layer: Matmul, context: Context, a: KerasTensor, b: KerasTensor) -> KerasTensor:
    """Keras' own product."""
    if layer.transpose_second:
        axes = list(range(len(b.shape)))
        b = keras.ops.transpose(b, (*axes[:-2], axes[-1], axes[-2]))
    return keras.ops.matmul(a, b)
