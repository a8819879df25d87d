"""The projection back onto a vocabulary."""

from __future__ import annotations

from unitrain.backends.numpy.reduction import sum_to_channel
from unitrain.backends.numpy.registry import Array, Context, Gradients, Parameters, Result, implements
from unitrain.spec.layers.projection import TiedProjection


@implements(TiedProjection)
def tied_projection(layer: TiedProjection, context: Context, parameters: Parameters, x: Array) -> Result:
    """``y = x T^T + b``: dx = dy T, dT = dy^T x, db = sum(dy)."""
    table = parameters["table"]
    rows = x.reshape(-1, x.shape[-1])
    y = rows @ table.T
    if layer.use_bias:
        y += parameters["bias"]

    def backward(dy: Array) -> Gradients:
        dy_rows = dy.reshape(-1, layer.units)
        gradients = {"table": dy_rows.T @ rows}
        if layer.use_bias:
            gradients["bias"] = sum_to_channel(dy)
        return ((dy_rows @ table).reshape(x.shape),), gradients

    return y.reshape(*x.shape[:-1], layer.units), backward
