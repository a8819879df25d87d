"""Gated linear units."""

from __future__ import annotations

import numpy as np

from unitrain.backends.numpy.registry import (
    IMPLEMENTATIONS,
    Array,
    Context,
    Gradients,
    Parameters,
    Result,
    implements,
)
from unitrain.spec.layers import LAYER_TYPES
from unitrain.spec.layers.gate import Glu


@implements(Glu)
def glu(layer: Glu, context: Context, parameters: Parameters, x: Array) -> Result:
    """``y = a g(b)``, [a, b] = x: da = dy g(b) and db = dy a g'(b)."""
    a, b = np.split(x, 2, axis=-1)
    gate, gate_back = _gate(layer.gate, context, b)

    def backward(dy: Array) -> Gradients:
        (db,), _ = gate_back(dy * a)
        assert db is not None
        return (np.concatenate([dy * gate, db], axis=-1),), {}

    return a * gate, backward


def _gate(name: str, context: Context, b: Array) -> Result:
    if name == "identity":
        return b, lambda dy: ((dy,), {})
    layer = LAYER_TYPES[name].model_validate({})
    result: Result = IMPLEMENTATIONS[type(layer)](layer, context, {}, b)
    return result
