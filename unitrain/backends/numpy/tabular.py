"""Layers for tables of numbers."""

from __future__ import annotations

from unitrain.backends.numpy.registry import Array, Context, Gradients, Parameters, Result, implements
from unitrain.spec.layers.tabular import FeatureTokens


@implements(FeatureTokens)
def feature_tokens(layer: FeatureTokens, context: Context, parameters: Parameters, x: Array) -> Result:
    """``y[j] = x[j] k[j] + b[j]``: dx[j] = sum(dy[j] k[j]), dk[j] = x[j] dy[j] and db[j] = dy[j] over the batch."""
    kernel = parameters["kernel"]
    y = x[..., None] * kernel
    if layer.use_bias:
        y += parameters["bias"]

    def backward(dy: Array) -> Gradients:
        gradients = {"kernel": (x[..., None] * dy).sum(axis=0)}
        if layer.use_bias:
            gradients["bias"] = dy.sum(axis=0)
        return ((dy * kernel).sum(axis=-1),), gradients

    return y, backward
