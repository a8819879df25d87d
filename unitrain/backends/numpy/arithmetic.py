"""Arithmetic with constants, and products of matrices."""

from __future__ import annotations

import numpy as np

from unitrain.backends.numpy.registry import Array, Context, Parameters, Result, implements
from unitrain.spec.layers.arithmetic import Matmul, Power, Scale, Shift


@implements(Scale)
def scale(layer: Scale, context: Context, parameters: Parameters, x: Array) -> Result:
    """``y = c x``: dx = c dy."""
    return x * layer.factor, lambda dy: ((dy * layer.factor,), {})


@implements(Shift)
def shift(layer: Shift, context: Context, parameters: Parameters, x: Array) -> Result:
    """``y = x + c``: dx = dy."""
    return x + layer.amount, lambda dy: ((dy,), {})


@implements(Power)
def power(layer: Power, context: Context, parameters: Parameters, x: Array) -> Result:
    """``y = x^n``: dx = n x^(n - 1) dy; for n = 0 that is 0, at x = 0 too."""
    n = layer.exponent
    if n == 0.0:
        return np.ones_like(x), lambda dy: ((np.zeros_like(dy),), {})
    with np.errstate(invalid="ignore", divide="ignore"):
        y = x**n

    def slope() -> Array:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(n * x ** (n - 1.0))

    return y, lambda dy: ((dy * slope(),), {})


@implements(Matmul)
def matmul(layer: Matmul, context: Context, parameters: Parameters, a: Array, b: Array) -> Result:
    """``Y = A B``: dA = dY B^T, dB = A^T dY; with B^T for B: dA = dY B, dB = dY^T A."""
    if layer.transpose_second:
        return a @ b.swapaxes(-1, -2), lambda dy: ((dy @ b, dy.swapaxes(-1, -2) @ a), {})
    return a @ b, lambda dy: ((dy @ b.swapaxes(-1, -2), a.swapaxes(-1, -2) @ dy), {})
