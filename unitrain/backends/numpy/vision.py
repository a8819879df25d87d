"""Parts of vision models."""

from __future__ import annotations

import numpy as np

from unitrain.backends.numpy.reduction import sum_leading, sum_to_channel
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
from unitrain.spec.layers.vision import ClassToken, LayerScale, PatchEmbedding, SqueezeExcite


@implements(LayerScale)
def layer_scale(layer: LayerScale, context: Context, parameters: Parameters, x: Array) -> Result:
    """``y = s x`` by channel: dx = s dy, ds = sum(x dy)."""
    scale = parameters["scale"]

    def backward(dy: Array) -> Gradients:
        return (dy * scale,), {"scale": sum_to_channel(dy * x)}

    return x * scale, backward


@implements(ClassToken)
def class_token(layer: ClassToken, context: Context, parameters: Parameters, x: Array) -> Result:
    """The token, then the sequence: dtoken is the sum of dy's first step over the batch, dx the rest of dy."""
    token = np.broadcast_to(parameters["token"], (len(x), 1, x.shape[-1]))

    def backward(dy: Array) -> Gradients:
        return (dy[:, 1:],), {"token": sum_leading(dy[:, 0], 1)}

    return np.concatenate([token, x], axis=1), backward


@implements(PatchEmbedding)
def patch_embedding(layer: PatchEmbedding, context: Context, parameters: Parameters, x: Array) -> Result:
    """With each patch a row of X: y = X K + b, dX = dy K^T, dK = X^T dy, db = sum(dy)."""
    (down, across), (high, wide) = layer.grid(x.shape[1:]), layer.patch
    kernel = parameters["kernel"].reshape(-1, layer.width)
    parts = x.reshape(len(x), down, high, across, wide, -1).swapaxes(2, 3)
    rows = parts.reshape(-1, len(kernel))
    y = rows @ kernel
    if layer.use_bias:
        y += parameters["bias"]

    def backward(dy: Array) -> Gradients:
        dy_rows = dy.reshape(-1, layer.width)
        gradients = {"kernel": (rows.T @ dy_rows).reshape(parameters["kernel"].shape)}
        if layer.use_bias:
            gradients["bias"] = sum_to_channel(dy)
        if not context.wanted[0]:
            return (None,), gradients
        return ((dy_rows @ kernel.T).reshape(parts.shape).swapaxes(2, 3).reshape(x.shape),), gradients

    return y.reshape(len(x), -1, layer.width), backward


def _activation(name: str, context: Context, x: Array) -> Result:
    layer = LAYER_TYPES[name].model_validate({})
    result: Result = IMPLEMENTATIONS[type(layer)](layer, context, {}, x)
    return result


@implements(SqueezeExcite)
def squeeze_excite(layer: SqueezeExcite, context: Context, parameters: Parameters, x: Array) -> Result:
    """``y = x g`` with the gates g = gate(h E + e), h = inner(m R + r) and m the mean of the n positions.

    From dg = sum over positions(x dy) back through both dense layers to dm: dx = g dy + dm / n.
    """
    reduce_kernel, expand_kernel = parameters["reduce_kernel"], parameters["expand_kernel"]
    positions = x.reshape(len(x), -1, x.shape[-1])
    mean = positions.mean(axis=1)
    h, inner_back = _activation(layer.inner, context, mean @ reduce_kernel + parameters["reduce_bias"])
    g, gate_back = _activation(layer.gate, context, h @ expand_kernel + parameters["expand_bias"])
    gates = g[:, None]

    def backward(dy: Array) -> Gradients:
        dy_positions = dy.reshape(positions.shape)
        (d_expanded,), _ = gate_back((positions * dy_positions).sum(axis=1))
        assert d_expanded is not None
        (d_reduced,), _ = inner_back(d_expanded @ expand_kernel.T)
        assert d_reduced is not None
        gradients = {
            "reduce_kernel": mean.T @ d_reduced,
            "reduce_bias": sum_to_channel(d_reduced),
            "expand_kernel": h.T @ d_expanded,
            "expand_bias": sum_to_channel(d_expanded),
        }
        d_mean = (d_reduced @ reduce_kernel.T)[:, None]
        return ((dy_positions * gates + d_mean * (1 / positions.shape[1])).reshape(x.shape),), gradients

    return (positions * gates).reshape(x.shape), backward
