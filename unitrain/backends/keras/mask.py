"""Masks: integers that say which positions count."""

from __future__ import annotations

import keras
import numpy as np

from unitrain.backends.keras.registry import Context, KerasTensor, implements
from unitrain.spec.layers.mask import LengthMask, PaddingMask


@implements(PaddingMask)
def padding_mask(layer: PaddingMask, context: Context, tokens: KerasTensor) -> KerasTensor:
    """Operations of Keras."""
    return keras.ops.cast(keras.ops.not_equal(tokens, layer.padding), "int32")


@implements(LengthMask)
def length_mask(layer: LengthMask, context: Context, lengths: KerasTensor) -> KerasTensor:
    """Operations of Keras."""
    lengths = keras.ops.reshape(lengths, (-1, 1))
    return keras.ops.cast(keras.ops.greater(lengths, np.arange(layer.length, dtype=np.int32)[None]), "int32")
