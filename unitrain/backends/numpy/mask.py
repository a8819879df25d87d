"""Masks: integers that say which positions count."""

from __future__ import annotations

import numpy as np

from unitrain.backends.numpy.registry import Array, Context, Gradients, Parameters, Result, implements
from unitrain.spec.layers.mask import LengthMask, PaddingMask


@implements(PaddingMask)
def padding_mask(layer: PaddingMask, context: Context, parameters: Parameters, tokens: Array) -> Result:
    """``y[i] = [x[i] != padding]``."""
    return (tokens != layer.padding).astype(tokens.dtype), _nothing


@implements(LengthMask)
def length_mask(layer: LengthMask, context: Context, parameters: Parameters, lengths: Array) -> Result:
    """``y[t] = [t < x]``."""
    return (np.arange(layer.length) < lengths.reshape(-1, 1)).astype(lengths.dtype), _nothing


def _nothing(dy: Array) -> Gradients:
    """Integers have no gradients."""
    return (None,), {}
