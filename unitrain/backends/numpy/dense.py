"""Fully connected layers."""

from __future__ import annotations

from unitrain.backends.numpy.reduction import sum_to_channel
from unitrain.backends.numpy.registry import (
    Array,
    Context,
    Gradients,
    Parameters,
    Result,
    implements,
)
from unitrain.spec.layers.dense import Dense


@implements(Dense)
def dense(layer: Dense, context: Context, parameters: Parameters, x: Array) -> Result:
    """``y = x K + b`` for each position: dx = dy K^T, dK = x^T dy, db = sum(dy)."""
    kernel = parameters["kernel"]
    rows = x.reshape(-1, x.shape[-1])
    y = rows @ kernel
    if layer.use_bias:
        y += parameters["bias"]

    def backward(dy: Array) -> Gradients:
        dy_rows = dy.reshape(-1, layer.units)
        gradients = {"kernel": rows.T @ dy_rows}
        if layer.use_bias:
            gradients["bias"] = sum_to_channel(dy)
        if not context.wanted[0]:
            return (None,), gradients
        if rows.flags.f_contiguous:  # the batch is innermost, and stays so
            return ((kernel @ dy_rows.T).T.reshape(x.shape),), gradients
        return ((dy_rows @ kernel.T).reshape(x.shape),), gradients

    return y.reshape(*x.shape[:-1], layer.units), backward
