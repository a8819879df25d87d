"""Layers that give the channels they read, each by itself or all of them together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unitrain.graph.node import Node
from unitrain.graph.passes.channel_rules.registry import affine, keep, rule, unknown, with_bias
from unitrain.graph.passes.channels import Axes, Channels, Traced, no_channels
from unitrain.spec import layers as spec


@rule(
    *(spec.Relu, spec.Relu6, spec.LeakyRelu, spec.Prelu, spec.Elu, spec.Selu, spec.Gelu, spec.Silu, spec.Sigmoid),
    *(spec.HardSigmoid, spec.HardSwish, spec.Tanh, spec.Softplus, spec.Scale, spec.Shift, spec.LayerScale),
    *(spec.Dropout, spec.StochasticDepth, spec.BatchNorm),
)
def _pointwise(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    (axes,) = inputs
    return Traced(axes, affine(node, axes[-1]) if node.parameters else {})


@rule(
    *(spec.MaxPool1d, spec.MaxPool2d, spec.MaxPool3d, spec.AveragePool1d, spec.AveragePool2d, spec.AveragePool3d),
    *(spec.GlobalAveragePool, spec.GlobalMaxPool, spec.Upsample1d, spec.Upsample2d, spec.Resize, spec.Padding),
    spec.InstanceNorm,
)
def _of_each_channel(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    """Mix positions, and leave the channels of the last axis apart."""
    *others, last = inputs[0]
    if node.output_shape[-1] != len(last):
        return unknown(channels, node, inputs)
    keep(channels, node, *others)
    return Traced((*no_channels(*node.output_shape[:-1]), last), affine(node, last))


@rule(spec.DepthwiseConv1d, spec.DepthwiseConv2d)
def _depthwise(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    assert isinstance(node.layer, spec.DepthwiseConv1d | spec.DepthwiseConv2d)
    *others, last = inputs[0]
    keep(channels, node, *others)
    given = np.repeat(last, node.layer.multiplier)
    kernel = (*no_channels(*node.layer.kernel_size), last, *no_channels(node.layer.multiplier))
    output = (*no_channels(*node.output_shape[:-1]), given)
    return Traced(output, with_bias(node, {"kernel": kernel}, given))


@rule(spec.FakeQuantize)
def _fake_quantize(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    """Ranges are of each channel, or one for all, which the zeros of a channel that goes do not change."""
    assert isinstance(node.layer, spec.FakeQuantize)
    ranges = inputs[0][-1] if node.layer.per_channel else no_channels(1)[0]
    return Traced(inputs[0], affine(node, ranges))


@rule(spec.GroupNorm)
def _group_norm(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    """Channels that are normalised together go together, with their group."""
    assert isinstance(node.layer, spec.GroupNorm)
    *others, last = inputs[0]
    keep(channels, node, *others)
    groups = last.reshape(node.layer.groups, -1)
    where = f"'{node.name}' normalises a group together"
    for column in groups.T[1:]:
        channels.join(groups[:, 0], column, where)
    return Traced(inputs[0], affine(node, last), {"groups": groups[:, 0]})


@rule(spec.LayerNorm, spec.RmsNorm, spec.Softmax)
def _over_channels(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    """Each channel's result depends on all others: without one the rest would change."""
    axes = inputs[0]
    count = node.layer.axes if isinstance(node.layer, spec.LayerNorm) else 1
    keep(channels, node, *axes[-count:], why="computes with all of them, zeros too")
    return Traced(axes, dict.fromkeys(node.parameters, axes[-count:]))


@rule(spec.Power)
def _power(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    assert isinstance(node.layer, spec.Power)
    if node.layer.exponent <= 0.0:
        keep(channels, node, *inputs[0], why="makes something of zeros")
    return Traced(inputs[0])


@rule(spec.PositionEmbedding)
def _position_embedding(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    assert isinstance(node.layer, spec.PositionEmbedding)
    length, last = inputs[0]
    keep(channels, node, length)
    rows = node.layer.max_length or node.output_shape[0]
    return Traced((length, last), {"table": (*no_channels(rows), last)})


@rule(spec.ClassToken)
def _class_token(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    length, last = inputs[0]
    keep(channels, node, length)
    return Traced((*no_channels(node.output_shape[0]), last), {"token": (last,)})
