"""How alike two vectors are."""

from __future__ import annotations

import numpy as np

from unitrain.backends.numpy.reduction import sum_stretched
from unitrain.backends.numpy.registry import Array, Context, Gradients, Parameters, Result, implements
from unitrain.spec.layers.similarity import Cosine, Dot


@implements(Dot)
def dot(layer: Dot, context: Context, parameters: Parameters, a: Array, b: Array) -> Result:
    """``y = sum(a b)``: da = dy b and db = dy a, summed over the axes along which a and b were stretched."""

    def backward(dy: Array) -> Gradients:
        spread = dy if layer.keep_axis else dy[..., None]
        return (sum_stretched(spread * b, a.shape), sum_stretched(spread * a, b.shape)), {}

    return (a * b).sum(axis=-1, keepdims=layer.keep_axis), backward


@implements(Cosine)
def cosine(layer: Cosine, context: Context, parameters: Parameters, a: Array, b: Array) -> Result:
    """``y = sum(u v)``, u = a / |a| and v = b / |b|, norms at least epsilon: da = dy (v - y u) / |a|.

    A norm that is below epsilon is a constant: there da = dy v / epsilon. For b the same, the other way round.
    """
    (u, long_a, norm_a), (v, long_b, norm_b) = _unit(a, layer.epsilon), _unit(b, layer.epsilon)
    y = (u * v).sum(axis=-1, keepdims=True)

    def backward(dy: Array) -> Gradients:
        spread = dy if layer.keep_axis else dy[..., None]
        da = spread * (v - long_a * y * u) / norm_a
        db = spread * (u - long_b * y * v) / norm_b
        return (sum_stretched(da, a.shape), sum_stretched(db, b.shape)), {}

    return y if layer.keep_axis else y[..., 0], backward


def _unit(x: Array, epsilon: float) -> tuple[Array, Array, Array]:
    """Return x by its norm, whether that is above epsilon, and the norm, epsilon at least."""
    square = (x * x).sum(axis=-1, keepdims=True)
    norm = np.sqrt(np.maximum(square, epsilon**2))
    return x / norm, square > epsilon**2, norm
