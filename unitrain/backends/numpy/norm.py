"""Normalisation: subtract a mean, divide by a spread, scale and shift by channel.

All but RMS norm share one derivative. With xhat = (x - mean) / sqrt(var + eps), mean and (biased) variance
over some axes, y = scale xhat + bias and g = scale dy:

    dx = (g - mean(g) - xhat mean(g xhat)) / sqrt(var + eps)
    dscale = sum(dy xhat), dbias = sum(dy)
"""

from __future__ import annotations

import numpy as np

from unitrain.backends.numpy.reduction import sum_leading, sum_to_channel
from unitrain.backends.numpy.registry import (
    Array,
    Context,
    Gradients,
    Parameters,
    Result,
    implements,
)
from unitrain.spec.layers.norm import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, RmsNorm


def _affine(xhat: Array, parameters: Parameters) -> Array:
    """Scale and shift, as far as the layer has scale and bias."""
    y = xhat * parameters["scale"] if "scale" in parameters else xhat
    return y + parameters["bias"] if "bias" in parameters else y


def _affine_backward(dy: Array, xhat: Array, parameters: Parameters) -> tuple[Array, dict[str, Array]]:
    """Return g = scale dy, and the gradients by scale and bias, summed to their shapes."""
    gradients = {}
    if "scale" in parameters:
        gradients["scale"] = sum_leading(dy * xhat, parameters["scale"].ndim)
    if "bias" in parameters:
        gradients["bias"] = sum_leading(dy, parameters["bias"].ndim)
    return (dy * parameters["scale"] if "scale" in parameters else dy), gradients


def _standardise(x: Array, axes: tuple[int, ...], epsilon: float) -> tuple[Array, Array]:
    """Return xhat and 1 / sqrt(var + eps), with mean and biased variance over ``axes``."""
    centred = x - x.mean(axis=axes, keepdims=True)
    inverse = 1 / np.sqrt(np.square(centred).mean(axis=axes, keepdims=True) + epsilon)
    return centred * inverse, inverse


def _standardise_backward(g: Array, xhat: Array, inverse: Array, axes: tuple[int, ...]) -> Array:
    mean_g = g.mean(axis=axes, keepdims=True)
    mean_gx = (g * xhat).mean(axis=axes, keepdims=True)
    dx: Array = (g - mean_g - xhat * mean_gx) * inverse
    return dx


@implements(BatchNorm)
def batch_norm(layer: BatchNorm, context: Context, parameters: Parameters, x: Array) -> Result:
    """Over batch and positions. In inference mean and variance are constants: dx = g / sqrt(var + eps)."""
    rows = x.size // x.shape[-1]
    if context.training:
        mean = sum_to_channel(x) / rows
        centred = x - mean
        variance = sum_to_channel(np.square(centred)) / rows
        for name, value in (("running_mean", mean), ("running_variance", variance)):
            context.update(name, layer.momentum * parameters[name] + (1 - layer.momentum) * value)
    else:
        centred = x - parameters["running_mean"]
        variance = parameters["running_variance"]
    inverse = 1 / np.sqrt(variance + layer.epsilon)
    xhat = centred * inverse

    def backward(dy: Array) -> Gradients:
        g, gradients = _affine_backward(dy, xhat, parameters)
        if context.training:
            g = g - sum_to_channel(g) / rows - xhat * (sum_to_channel(g * xhat) / rows)
        return (g * inverse,), gradients

    return _affine(xhat, parameters), backward


@implements(LayerNorm)
def layer_norm(layer: LayerNorm, context: Context, parameters: Parameters, x: Array) -> Result:
    """Over the last axes of each sample."""
    axes = tuple(range(x.ndim - layer.axes, x.ndim))
    xhat, inverse = _standardise(x, axes, layer.epsilon)

    def backward(dy: Array) -> Gradients:
        g, gradients = _affine_backward(dy, xhat, parameters)
        return (_standardise_backward(g, xhat, inverse, axes),), gradients

    return _affine(xhat, parameters), backward


@implements(GroupNorm, InstanceNorm)
def group_norm(layer: GroupNorm | InstanceNorm, context: Context, parameters: Parameters, x: Array) -> Result:
    """Over all positions and a run of channels, seen as ``[batch, positions, groups, channels a group]``."""
    groups = layer.groups_of(x.shape[-1])
    grouped = (len(x), -1, groups, x.shape[-1] // groups)
    axes = (1, 3)
    xhat_grouped, inverse = _standardise(x.reshape(grouped), axes, layer.epsilon)
    xhat = xhat_grouped.reshape(x.shape)

    def backward(dy: Array) -> Gradients:
        g, gradients = _affine_backward(dy, xhat, parameters)
        dx = _standardise_backward(g.reshape(grouped), xhat_grouped, inverse, axes)
        return (dx.reshape(x.shape),), gradients

    return _affine(xhat, parameters), backward


@implements(RmsNorm)
def rms_norm(layer: RmsNorm, context: Context, parameters: Parameters, x: Array) -> Result:
    """Over the channels: xhat = x r, r = 1 / sqrt(mean(x^2) + eps); dx = (g - xhat mean(g xhat)) r."""
    inverse = 1 / np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + layer.epsilon)
    xhat = x * inverse

    def backward(dy: Array) -> Gradients:
        g, gradients = _affine_backward(dy, xhat, parameters)
        return ((g - xhat * (g * xhat).mean(axis=-1, keepdims=True)) * inverse,), gradients

    return _affine(xhat, parameters), backward
