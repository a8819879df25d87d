"""Normalisation: ONNX's own operators where they have the pinned meaning and precision, else the formula.

Attributes of operators are float32 numbers, so in float64 an epsilon given as one would be wrong in its eighth digit.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from unitrain.backends.onnx.emitter import Array, LayerEmitter, Value
from unitrain.backends.onnx.registry import implements
from unitrain.spec.layers.norm import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, RmsNorm


@implements(BatchNorm)
def batch_norm(layer: BatchNorm, b: LayerEmitter, x: Value) -> Value:
    """With the running statistics; in float64 the variance takes up what the attribute has lost of epsilon."""
    channels = x.shape[-1]
    variance = b.weight("running_variance")
    if b.double:
        variance = variance + (layer.epsilon - float(np.float32(layer.epsilon)))
    y = b.op(
        "BatchNormalization",
        b.first(x),
        _scale(b, (channels,)),
        b.parameter("bias") if b.has("bias") else b.floats(np.zeros(channels)),
        b.parameter("running_mean"),
        b.parameter("running_variance", variance),
        epsilon=layer.epsilon,
    )
    return b.value(y, "channels_first")


@implements(LayerNorm)
def layer_norm(layer: LayerNorm, b: LayerEmitter, x: Value) -> Value:
    """Over the last axes of each sample."""
    if b.double:
        axes = range(x.rank - layer.axes, x.rank)
        return b.value(_affine(b, _standardised(b, b.last(x), axes, layer.epsilon)))
    shape = x.shape[-layer.axes :]
    inputs = [b.last(x), _scale(b, shape), *b.optional("bias")]
    return b.value(b.op("LayerNormalization", *inputs, axis=-layer.axes, epsilon=layer.epsilon))


@implements(GroupNorm, InstanceNorm)
def group_norm(layer: GroupNorm | InstanceNorm, b: LayerEmitter, x: Value) -> Value:
    """Over all positions and a run of channels, by the formula at every opset.

    ONNX's operator is a function whose variance is mean(x^2) - mean(x)^2: where a group's mean is large beside its
    spread that loses what is left of the digits.
    """
    channels = x.shape[-1]
    groups = layer.groups_of(channels)
    grouped = b.reshaped(b.first(x), [groups, prod(x.shape) // groups])
    xhat = b.reshaped(_standardised(b, grouped, [2], layer.epsilon), [channels, *x.shape[:-1]])
    return b.value(_affine(b, xhat, by_channel_of_rank=x.rank), "channels_first")


@implements(RmsNorm)
def rms_norm(layer: RmsNorm, b: LayerEmitter, x: Value) -> Value:
    """Over the channels; an operator from opset 23 on. What it is written with before, onnxruntime fuses."""
    if b.opset >= 23 and not b.double:
        y = b.op("RMSNormalization", b.last(x), _scale(b, x.shape[-1:]), axis=-1, epsilon=layer.epsilon)
        return b.value(y)
    square = b.op("Pow", b.last(x), b.number(2.0))
    return b.value(_affine(b, _divided(b, b.last(x), square, [x.rank - 1], layer.epsilon)))


def _scale(b: LayerEmitter, shape: Sequence[int]) -> str:
    return b.parameter("scale") if b.has("scale") else b.floats(np.ones(shape))


def _standardised(b: LayerEmitter, x: str, axes: Sequence[int], epsilon: float) -> str:
    """(x - mean) / sqrt(var + eps), with mean and biased variance over ``axes``."""
    centred = b.op("Sub", x, b.reduced("ReduceMean", x, axes, keep=True))
    return _divided(b, centred, b.op("Mul", centred, centred), axes, epsilon)


def _divided(b: LayerEmitter, x: str, square: str, axes: Sequence[int], epsilon: float) -> str:
    """``x / sqrt(mean(square) + eps)``."""
    spread = b.op("Add", b.reduced("ReduceMean", square, axes, keep=True), b.number(epsilon))
    return b.op("Div", x, b.op("Sqrt", spread))


def _affine(b: LayerEmitter, tensor: str, *, by_channel_of_rank: int | None = None) -> str:
    """Scale and shift as far as the layer has scale and bias: by the last axes, or the channel on axis 1."""

    def laid_out(array: Array) -> Array:
        return array if by_channel_of_rank is None else array.reshape(-1, *(1,) * (by_channel_of_rank - 2))

    for local, kind in (("scale", "Mul"), ("bias", "Add")):
        if b.has(local):
            tensor = b.op(kind, tensor, b.parameter(local, laid_out(b.weight(local))))
    return tensor
