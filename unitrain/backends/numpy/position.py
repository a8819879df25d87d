"""Where a token stands in its sequence, added to what it is."""

from __future__ import annotations

import numpy as np

from unitrain.backends.numpy.registry import Array, Context, Gradients, Parameters, Result, implements
from unitrain.backends.tables import sinusoidal_waves
from unitrain.spec.layers.position import PositionEmbedding, SinusoidalPosition


@implements(PositionEmbedding)
def position_embedding(layer: PositionEmbedding, context: Context, parameters: Parameters, x: Array) -> Result:
    """``y[p] = x[p] + table[p]``: dtable[p] is the sum of dy[p] over the batch."""
    table = parameters["table"]

    def backward(dy: Array) -> Gradients:
        gradient = np.zeros_like(table)
        gradient[: x.shape[1]] = dy.sum(axis=0)
        return (dy,), {"table": gradient}

    return x + table[: x.shape[1]], backward


@implements(SinusoidalPosition)
def sinusoidal_position(layer: SinusoidalPosition, context: Context, parameters: Parameters, x: Array) -> Result:
    """``y[p] = x[p] + wave[p]``: dx = dy."""
    waves = sinusoidal_waves(x.shape[1:], layer.base, layer.layout)
    return x + waves.astype(x.dtype), lambda dy: ((dy,), {})
