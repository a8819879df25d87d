"""Layers whose weights make new channels of those they read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unitrain.graph.node import Node
from unitrain.graph.passes.channel_rules.registry import keep, rule, with_bias
from unitrain.graph.passes.channels import Axes, Channels, Numbers, Traced, no_channels
from unitrain.spec import layers as spec


@rule(spec.Dense)
def _dense(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    *others, last = inputs[0]
    made = channels.new(node.output_shape[-1])
    return Traced((*others, made), with_bias(node, {"kernel": (last, made)}, made), {"units": made})


@rule(spec.Conv1d, spec.Conv2d, spec.Conv3d)
def _conv(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    """Filters are new channels; of groups the channels at one place in each of them go together.

    Where each group reads one channel it is a depthwise convolution, and whole groups go.
    """
    assert isinstance(node.layer, spec.Conv1d | spec.Conv2d | spec.Conv3d)
    *others, last = inputs[0]
    keep(channels, node, *others)
    groups, filters = node.layer.groups, node.layer.filters
    fields = {}
    if groups == len(last) and groups > 1:
        read, made = no_channels(1)[0], np.repeat(last, filters // groups)
        fields["groups"] = last
    else:
        rows = last.reshape(groups, -1)
        for row in rows[1:]:
            channels.join(rows[0], row, f"'{node.name}' has groups of equal size")
        read, made = rows[0], np.tile(channels.new(filters // groups), groups)
    fields["filters"] = made
    window = no_channels(*node.layer.kernel_size)
    output = (*no_channels(*node.output_shape[:-1]), made)
    return Traced(output, with_bias(node, {"kernel": (*window, read, made)}, made), fields)


@rule(spec.ConvTranspose1d, spec.ConvTranspose2d)
def _conv_transpose(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    assert isinstance(node.layer, spec.ConvTranspose1d | spec.ConvTranspose2d)
    *others, last = inputs[0]
    keep(channels, node, *others)
    made = channels.new(node.layer.filters)
    kernel = (*no_channels(*node.layer.kernel_size), last, made)
    output = (*no_channels(*node.output_shape[:-1]), made)
    return Traced(output, with_bias(node, {"kernel": kernel}, made), {"filters": made})


@rule(spec.PatchEmbedding)
def _patch_embedding(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    assert isinstance(node.layer, spec.PatchEmbedding)
    *others, last = inputs[0]
    keep(channels, node, *others)
    made = channels.new(node.layer.width)
    kernel = (*no_channels(*node.layer.patch), last, made)
    output = (*no_channels(node.output_shape[0]), made)
    return Traced(output, with_bias(node, {"kernel": kernel}, made), {"width": made})


@rule(spec.SeparableConv1d, spec.SeparableConv2d)
def _separable(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    assert isinstance(node.layer, spec.SeparableConv1d | spec.SeparableConv2d)
    *others, last = inputs[0]
    keep(channels, node, *others)
    made = channels.new(node.layer.filters)
    kernels: dict[str, Axes] = {
        "depthwise_kernel": (*no_channels(*node.layer.kernel_size), last, *no_channels(node.layer.multiplier)),
        "pointwise_kernel": (np.repeat(last, node.layer.multiplier), made),
    }
    output = (*no_channels(*node.output_shape[:-1]), made)
    return Traced(output, with_bias(node, kernels, made), {"filters": made})


@rule(spec.SqueezeExcite)
def _squeeze_excite(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    """The gates are those of the channels; the narrow layer between has channels of its own."""
    assert isinstance(node.layer, spec.SqueezeExcite)
    *others, last = inputs[0]
    keep(channels, node, *others)
    inner = channels.new(node.layer.reduced)
    parameters: dict[str, Axes] = {
        "reduce_kernel": (last, inner),
        "reduce_bias": (inner,),
        "expand_kernel": (inner, last),
        "expand_bias": (last,),
    }
    return Traced(inputs[0], parameters, {"reduced": inner})


@rule(spec.Embedding)
def _embedding(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    assert isinstance(node.layer, spec.Embedding)
    made = channels.new(node.layer.width)
    rows = node.layer.vocabulary * node.layer.tables(*node.input_shapes)
    return Traced((*inputs[0], made), {"table": (*no_channels(rows), made)}, {"width": made})


@rule(spec.TiedProjection)
def _tied_projection(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    assert isinstance(node.layer, spec.TiedProjection)
    *others, last = inputs[0]
    made = channels.new(node.layer.units)
    return Traced((*others, made), with_bias(node, {"table": (made, last)}, made), {"units": made})


@rule(spec.FeatureTokens)
def _feature_tokens(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    made = channels.new(node.output_shape[-1])
    axes = (inputs[0][0], made)
    return Traced(axes, dict.fromkeys(node.parameters, axes), {"width": made})


@rule(spec.Attention)
def _attention(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    """Heads go whole; heads of queries that share keys and values go together."""
    layer = node.layer
    assert isinstance(layer, spec.Attention)
    length, last = inputs[0]
    (steps, source), *_ = layer.sides(inputs).get("key_value", (inputs[0],))
    keep(channels, node, length, steps)
    width, shared = layer.channels(*node.input_shapes), layer.heads // layer.groups
    head = channels.new(layer.groups)
    if layer.position == "alibi":
        keep(channels, node, head, why="gives each head a slope by its place (ALiBi)")
    heads = np.repeat(head, shared)
    queries, keys, made = np.repeat(heads, width), np.repeat(head, width), channels.new(node.output_shape[-1])
    parameters: dict[str, Axes] = {
        "query": (last, queries),
        "key": (source, keys),
        "value": (source, keys),
        "output": (queries, made),
    }
    biases: dict[str, Axes] = {f"{name}_bias": axes[-1:] for name, axes in parameters.items()}
    chosen = {local: {**parameters, **biases}[local] for local in node.parameters}
    fields: dict[str, Numbers | Axes] = {"heads": heads, "key_value_heads": head, "width": made}
    return Traced((length, made), chosen, fields, {"head_width": width})


@rule(spec.Lstm, spec.Gru, spec.SimpleRnn)
def _recurrent(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    """Each unit of the state has a column in every gate; both directions have the same units."""
    layer = node.layer
    assert isinstance(layer, spec.RecurrentLayer)
    length, last = inputs[0]
    keep(channels, node, length)
    made = channels.new(layer.units)
    columns, state = np.tile(made, layer.gates), np.tile(made, len(layer.directions))
    axes: dict[str, Axes] = {
        "kernel": (last, columns),
        "recurrent": (made, columns),
        "bias": (columns,),
        "recurrent_bias": (made,),
    }
    for (initial,) in layer.sides(inputs).get("initial_state", ()):
        channels.join(state, initial, f"'{node.name}' starts with it")
    parameters = {local: axes[local.removeprefix("backward_")] for local in node.parameters}
    given = (
        (*no_channels(node.output_shape[0]), state) if layer.returns == "sequence" else (np.tile(state, layer.parts),)
    )
    return Traced(given, parameters, {"units": made})
