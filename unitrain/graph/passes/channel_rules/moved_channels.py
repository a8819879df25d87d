"""Layers without weights that join, take apart or move channels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unitrain.graph.node import Node
from unitrain.graph.passes.channel_rules.registry import keep, rule
from unitrain.graph.passes.channels import Axes, Channels, Numbers, Traced, no_channels, reshaped
from unitrain.spec import layers as spec
from unitrain.spec.layers.axis import Reduction, counted


@rule(spec.Add, spec.Multiply, spec.Subtract)
def _elementwise(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    """Channels at one place go together; one that stretches over others stays."""
    result = []
    for axes in zip(*inputs, strict=True):
        wide = next((axis for axis in axes if len(axis) > 1), axes[0])
        for axis in axes:
            if len(axis) == len(wide):
                channels.join(wide, axis, f"{node.layer.type} '{node.name}' joins them with what stays")
            else:
                keep(channels, node, axis, why="stretches them over others")
        result.append(wide)
    return Traced(tuple(result))


@rule(spec.Concatenate)
def _concatenate(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    assert isinstance(node.layer, spec.Concatenate)
    joined = node.layer.axis % len(inputs[0])
    result = list(_joined(channels, node, [[*axes[:joined], *axes[joined + 1 :]] for axes in inputs]))
    result.insert(joined, np.concatenate([axes[joined] for axes in inputs]))
    return Traced(tuple(result))


@rule(spec.Stack)
def _stack(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    assert isinstance(node.layer, spec.Stack)
    result = list(_joined(channels, node, inputs))
    result.insert(node.layer.axis % len(node.output_shape), *no_channels(len(inputs)))
    return Traced(tuple(result))


def _joined(channels: Channels, node: Node, inputs: Sequence[Sequence[Numbers]]) -> Sequence[Numbers]:
    """Join inputs of one shape axis by axis; return the first."""
    for axes in inputs[1:]:
        for first, other in zip(inputs[0], axes, strict=True):
            channels.join(first, other, f"{node.layer.type} '{node.name}' joins them with what stays")
    return inputs[0]


@rule(spec.Glu)
def _glu(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    """A value goes with its gate."""
    *others, last = inputs[0]
    values, gates = np.split(last, 2)
    channels.join(values, gates, f"'{node.name}' joins them with what stays")
    return Traced((*others, values))


@rule(spec.Flatten, spec.Reshape)
def _reshape(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    axes = reshaped(channels, inputs[0], node.output_shape, f"'{node.name}' merges two axes of channels")
    return Traced(axes, fields={"shape": axes} if isinstance(node.layer, spec.Reshape) else {})


@rule(spec.Permute)
def _permute(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    assert isinstance(node.layer, spec.Permute)
    return Traced(tuple(inputs[0][axis] for axis in node.layer.axes))


@rule(spec.Slice, spec.Split)
def _part(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    """Part of an axis is a slice of it, with other ends: of a split, parts that nothing reads may go as a whole."""
    layer = node.layer
    assert isinstance(layer, spec.Slice | spec.Split)
    axes, shape = list(inputs[0]), node.input_shapes[0]
    place = counted(layer.axis, len(shape), shape)
    numbers, taken = axes[place], layer.positions(shape)
    axes[place] = numbers[taken.start : taken.stop : taken.step]
    if taken.step > 1:
        keep(channels, node, numbers, why="takes them at equal distances")
    ends = {"start": numbers[: taken.start], "stop": numbers[: taken.stop]}
    instead = spec.Slice(axis=layer.axis, step=taken.step)
    return Traced(tuple(axes), fields=ends, counted=(numbers,), layer=instead)


@rule(spec.Select)
def _select(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    layer = node.layer
    assert isinstance(layer, spec.Select)
    axes, shape = list(inputs[0]), node.input_shapes[0]
    numbers = axes.pop(counted(layer.axis, len(shape), shape))
    index = layer.index % len(numbers)
    keep(channels, node, numbers[index : index + 1], why="takes this one")
    return Traced(tuple(axes), fields={"index": numbers[:index]}, counted=(numbers,))


@rule(spec.Gather)
def _gather(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    (length, *others), indices = inputs
    keep(channels, node, length, why="takes them by number")
    return Traced((*no_channels(*node.output_shape[: len(indices)]), *others))


@rule(spec.Sum, spec.Mean, spec.Maximum)
def _reduction(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    assert isinstance(node.layer, Reduction)
    axes, shape = list(inputs[0]), node.input_shapes[0]
    place = counted(node.layer.axis, len(shape), shape)
    keep(channels, node, axes[place])
    kept = no_channels(1) if node.layer.keep_axis else ()
    return Traced((*axes[:place], *kept, *axes[place + 1 :]))


@rule(spec.Matmul)
def _matmul(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    assert isinstance(node.layer, spec.Matmul)
    (*before, rows, inner), (*also, other, columns) = inputs
    if node.layer.transpose_second:
        other, columns = columns, other
    keep(channels, node, inner, other)
    leading = _joined(channels, node, [before, also])
    return Traced((*leading, rows, columns))


@rule(spec.PixelShuffle)
def _pixel_shuffle(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    """The channels of a square of pixels go together."""
    assert isinstance(node.layer, spec.PixelShuffle)
    *others, last = inputs[0]
    keep(channels, node, *others)
    squares = last.reshape(-1, node.layer.factor**2)
    for column in squares.T[1:]:
        channels.join(squares[:, 0], column, f"'{node.name}' makes a square of them")
    return Traced((*no_channels(*node.output_shape[:-1]), squares[:, 0]))


@rule(spec.PixelUnshuffle)
def _pixel_unshuffle(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    assert isinstance(node.layer, spec.PixelUnshuffle)
    *others, last = inputs[0]
    keep(channels, node, *others)
    return Traced((*no_channels(*node.output_shape[:-1]), np.repeat(last, node.layer.factor**2)))
