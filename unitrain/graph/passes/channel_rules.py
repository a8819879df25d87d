"""What each layer does to channels: makes new ones, passes them on, joins them, or mixes them so that none can go.

A channel may go from a layer that mixes channels only through weights: then nothing that stays has read it once its
weights are zero. A layer without a rule here keeps all that it reads and gives, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from unitrain.graph.node import Node
from unitrain.graph.passes.channels import Axes, Channels, Numbers, Rule, Traced, no_channels, reshaped
from unitrain.spec import layers as spec
from unitrain.spec.layers.axis import Reduction, counted

RULES: dict[type[spec.LayerSpec], Rule] = {}


def rule_of(node: Node) -> Rule:
    """Return the rule of a node's layer; of a layer that has none, that nothing may go."""
    return RULES.get(type(node.layer), unknown)


def unknown(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    """Keep everything that is read and given."""
    _keep(channels, node, *(axis for axes in inputs for axis in axes))
    shapes = {local: parameter.shape for local, parameter in node.layer.parameters(*node.input_shapes).items()}
    return Traced(no_channels(*node.output_shape), {local: no_channels(*shape) for local, shape in shapes.items()})


def _rule(*types: type[spec.LayerSpec]) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(types, rule))
        return rule

    return register


def _keep(channels: Channels, node: Node, *axes: Numbers, why: str = "mixes them without weights") -> None:
    for axis in axes:
        channels.keep(axis, f"{node.layer.type} '{node.name}' {why}")


def _affine(node: Node, numbers: Numbers) -> dict[str, Axes]:
    """Return the axes of parameters that are vectors, one number a channel."""
    return dict.fromkeys(node.parameters, (numbers,))


@_rule(
    *(spec.Relu, spec.Relu6, spec.LeakyRelu, spec.Prelu, spec.Elu, spec.Selu, spec.Gelu, spec.Silu, spec.Sigmoid),
    *(spec.HardSigmoid, spec.HardSwish, spec.Tanh, spec.Softplus, spec.Scale, spec.Shift, spec.LayerScale),
    *(spec.Dropout, spec.StochasticDepth, spec.BatchNorm),
)
def _pointwise(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    (axes,) = inputs
    return Traced(axes, _affine(node, axes[-1]) if node.parameters else {})


@_rule(
    *(spec.MaxPool1d, spec.MaxPool2d, spec.MaxPool3d, spec.AveragePool1d, spec.AveragePool2d, spec.AveragePool3d),
    *(spec.GlobalAveragePool, spec.GlobalMaxPool, spec.Upsample1d, spec.Upsample2d, spec.Resize, spec.Padding),
    spec.InstanceNorm,
)
def _of_each_channel(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    """Mix positions, and leave the channels of the last axis apart."""
    *others, last = inputs[0]
    if node.output_shape[-1] != len(last):
        return unknown(channels, node, inputs)
    _keep(channels, node, *others)
    return Traced((*no_channels(*node.output_shape[:-1]), last), _affine(node, last))


@_rule(spec.FakeQuantize)
def _fake_quantize(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    """Ranges are of each channel, or one for all, which the zeros of a channel that goes do not change."""
    assert isinstance(node.layer, spec.FakeQuantize)
    ranges = inputs[0][-1] if node.layer.per_channel else no_channels(1)[0]
    return Traced(inputs[0], _affine(node, ranges))


@_rule(spec.Dense)
def _dense(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    *others, last = inputs[0]
    made = channels.new(node.output_shape[-1])
    return Traced((*others, made), _with_bias(node, {"kernel": (last, made)}, made), {"units": made})


def _with_bias(node: Node, parameters: dict[str, Axes], made: Numbers) -> dict[str, Axes]:
    return {**parameters, "bias": (made,)} if "bias" in node.parameters else parameters


@_rule(spec.Conv1d, spec.Conv2d, spec.Conv3d)
def _conv(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    """Filters are new channels; of groups the channels at one place in each of them go together.

    Where each group reads one channel it is a depthwise convolution, and whole groups go.
    """
    assert isinstance(node.layer, spec.Conv1d | spec.Conv2d | spec.Conv3d)
    *others, last = inputs[0]
    _keep(channels, node, *others)
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
    return Traced(output, _with_bias(node, {"kernel": (*window, read, made)}, made), fields)


@_rule(spec.ConvTranspose1d, spec.ConvTranspose2d)
def _conv_transpose(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    assert isinstance(node.layer, spec.ConvTranspose1d | spec.ConvTranspose2d)
    *others, last = inputs[0]
    _keep(channels, node, *others)
    made = channels.new(node.layer.filters)
    kernel = (*no_channels(*node.layer.kernel_size), last, made)
    output = (*no_channels(*node.output_shape[:-1]), made)
    return Traced(output, _with_bias(node, {"kernel": kernel}, made), {"filters": made})


@_rule(spec.PatchEmbedding)
def _patch_embedding(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    assert isinstance(node.layer, spec.PatchEmbedding)
    *others, last = inputs[0]
    _keep(channels, node, *others)
    made = channels.new(node.layer.width)
    kernel = (*no_channels(*node.layer.patch), last, made)
    output = (*no_channels(node.output_shape[0]), made)
    return Traced(output, _with_bias(node, {"kernel": kernel}, made), {"width": made})


@_rule(spec.DepthwiseConv1d, spec.DepthwiseConv2d)
def _depthwise(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    assert isinstance(node.layer, spec.DepthwiseConv1d | spec.DepthwiseConv2d)
    *others, last = inputs[0]
    _keep(channels, node, *others)
    given = np.repeat(last, node.layer.multiplier)
    kernel = (*no_channels(*node.layer.kernel_size), last, *no_channels(node.layer.multiplier))
    output = (*no_channels(*node.output_shape[:-1]), given)
    return Traced(output, _with_bias(node, {"kernel": kernel}, given))


@_rule(spec.SeparableConv1d, spec.SeparableConv2d)
def _separable(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    assert isinstance(node.layer, spec.SeparableConv1d | spec.SeparableConv2d)
    *others, last = inputs[0]
    _keep(channels, node, *others)
    made = channels.new(node.layer.filters)
    kernels: dict[str, Axes] = {
        "depthwise_kernel": (*no_channels(*node.layer.kernel_size), last, *no_channels(node.layer.multiplier)),
        "pointwise_kernel": (np.repeat(last, node.layer.multiplier), made),
    }
    output = (*no_channels(*node.output_shape[:-1]), made)
    return Traced(output, _with_bias(node, kernels, made), {"filters": made})


@_rule(spec.SqueezeExcite)
def _squeeze_excite(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    """The gates are those of the channels; the narrow layer between has channels of its own."""
    assert isinstance(node.layer, spec.SqueezeExcite)
    *others, last = inputs[0]
    _keep(channels, node, *others)
    inner = channels.new(node.layer.reduced)
    parameters: dict[str, Axes] = {
        "reduce_kernel": (last, inner),
        "reduce_bias": (inner,),
        "expand_kernel": (inner, last),
        "expand_bias": (last,),
    }
    return Traced(inputs[0], parameters, {"reduced": inner})


@_rule(spec.GroupNorm)
def _group_norm(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    """Channels that are normalised together go together, with their group."""
    assert isinstance(node.layer, spec.GroupNorm)
    *others, last = inputs[0]
    _keep(channels, node, *others)
    groups = last.reshape(node.layer.groups, -1)
    where = f"'{node.name}' normalises a group together"
    for column in groups.T[1:]:
        channels.join(groups[:, 0], column, where)
    return Traced(inputs[0], _affine(node, last), {"groups": groups[:, 0]})


@_rule(spec.LayerNorm, spec.RmsNorm, spec.Softmax)
def _over_channels(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    """Each channel's result depends on all others: without one the rest would change."""
    axes = inputs[0]
    count = node.layer.axes if isinstance(node.layer, spec.LayerNorm) else 1
    _keep(channels, node, *axes[-count:], why="computes with all of them, zeros too")
    return Traced(axes, dict.fromkeys(node.parameters, axes[-count:]))


@_rule(spec.Embedding)
def _embedding(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    assert isinstance(node.layer, spec.Embedding)
    made = channels.new(node.layer.width)
    rows = node.layer.vocabulary * node.layer.tables(*node.input_shapes)
    return Traced((*inputs[0], made), {"table": (*no_channels(rows), made)}, {"width": made})


@_rule(spec.TiedProjection)
def _tied_projection(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    assert isinstance(node.layer, spec.TiedProjection)
    *others, last = inputs[0]
    made = channels.new(node.layer.units)
    return Traced((*others, made), _with_bias(node, {"table": (made, last)}, made), {"units": made})


@_rule(spec.PositionEmbedding)
def _position_embedding(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    assert isinstance(node.layer, spec.PositionEmbedding)
    length, last = inputs[0]
    _keep(channels, node, length)
    rows = node.layer.max_length or node.output_shape[0]
    return Traced((length, last), {"table": (*no_channels(rows), last)})


@_rule(spec.ClassToken)
def _class_token(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    length, last = inputs[0]
    _keep(channels, node, length)
    return Traced((*no_channels(node.output_shape[0]), last), {"token": (last,)})


@_rule(spec.FeatureTokens)
def _feature_tokens(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    made = channels.new(node.output_shape[-1])
    axes = (inputs[0][0], made)
    return Traced(axes, dict.fromkeys(node.parameters, axes), {"width": made})


@_rule(spec.Attention)
def _attention(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    """Heads go whole; heads of queries that share keys and values go together."""
    layer = node.layer
    assert isinstance(layer, spec.Attention)
    length, last = inputs[0]
    (steps, source), *_ = layer.sides(inputs).get("key_value", (inputs[0],))
    _keep(channels, node, length, steps)
    width, shared = layer.channels(*node.input_shapes), layer.heads // layer.groups
    head = channels.new(layer.groups)
    if layer.position == "alibi":
        _keep(channels, node, head, why="gives each head a slope by its place (ALiBi)")
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


@_rule(spec.Lstm, spec.Gru, spec.SimpleRnn)
def _recurrent(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    """Each unit of the state has a column in every gate; both directions have the same units."""
    layer = node.layer
    assert isinstance(layer, spec.RecurrentLayer)
    length, last = inputs[0]
    _keep(channels, node, length)
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


@_rule(spec.Power)
def _power(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    assert isinstance(node.layer, spec.Power)
    if node.layer.exponent <= 0.0:
        _keep(channels, node, *inputs[0], why="makes something of zeros")
    return Traced(inputs[0])


@_rule(spec.Add, spec.Multiply, spec.Subtract)
def _elementwise(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    """Channels at one place go together; one that stretches over others stays."""
    result = []
    for axes in zip(*inputs, strict=True):
        wide = next((axis for axis in axes if len(axis) > 1), axes[0])
        for axis in axes:
            if len(axis) == len(wide):
                channels.join(wide, axis, f"{node.layer.type} '{node.name}' joins them with what stays")
            else:
                _keep(channels, node, axis, why="stretches them over others")
        result.append(wide)
    return Traced(tuple(result))


@_rule(spec.Concatenate)
def _concatenate(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    assert isinstance(node.layer, spec.Concatenate)
    joined = node.layer.axis % len(inputs[0])
    result = list(_joined(channels, node, [[*axes[:joined], *axes[joined + 1 :]] for axes in inputs]))
    result.insert(joined, np.concatenate([axes[joined] for axes in inputs]))
    return Traced(tuple(result))


@_rule(spec.Stack)
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


@_rule(spec.Glu)
def _glu(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    """A value goes with its gate."""
    *others, last = inputs[0]
    values, gates = np.split(last, 2)
    channels.join(values, gates, f"'{node.name}' joins them with what stays")
    return Traced((*others, values))


@_rule(spec.Flatten, spec.Reshape)
def _reshape(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    axes = reshaped(channels, inputs[0], node.output_shape, f"'{node.name}' merges two axes of channels")
    return Traced(axes, fields={"shape": axes} if isinstance(node.layer, spec.Reshape) else {})


@_rule(spec.Permute)
def _permute(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    assert isinstance(node.layer, spec.Permute)
    return Traced(tuple(inputs[0][axis] for axis in node.layer.axes))


@_rule(spec.Slice, spec.Split)
def _part(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    """Part of an axis is a slice of it, with other ends: of a split, parts that nothing reads may go as a whole."""
    layer = node.layer
    assert isinstance(layer, spec.Slice | spec.Split)
    axes, shape = list(inputs[0]), node.input_shapes[0]
    place = counted(layer.axis, len(shape), shape)
    numbers, taken = axes[place], layer.positions(shape)
    axes[place] = numbers[taken.start : taken.stop : taken.step]
    if taken.step > 1:
        _keep(channels, node, numbers, why="takes them at equal distances")
    ends = {"start": numbers[: taken.start], "stop": numbers[: taken.stop]}
    instead = spec.Slice(axis=layer.axis, step=taken.step)
    return Traced(tuple(axes), fields=ends, counted=(numbers,), layer=instead)


@_rule(spec.Select)
def _select(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    layer = node.layer
    assert isinstance(layer, spec.Select)
    axes, shape = list(inputs[0]), node.input_shapes[0]
    numbers = axes.pop(counted(layer.axis, len(shape), shape))
    index = layer.index % len(numbers)
    _keep(channels, node, numbers[index : index + 1], why="takes this one")
    return Traced(tuple(axes), fields={"index": numbers[:index]}, counted=(numbers,))


@_rule(spec.Gather)
def _gather(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    (length, *others), indices = inputs
    _keep(channels, node, length, why="takes them by number")
    return Traced((*no_channels(*node.output_shape[: len(indices)]), *others))


@_rule(spec.Sum, spec.Mean, spec.Maximum)
def _reduction(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    assert isinstance(node.layer, Reduction)
    axes, shape = list(inputs[0]), node.input_shapes[0]
    place = counted(node.layer.axis, len(shape), shape)
    _keep(channels, node, axes[place])
    kept = no_channels(1) if node.layer.keep_axis else ()
    return Traced((*axes[:place], *kept, *axes[place + 1 :]))


@_rule(spec.Matmul)
def _matmul(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    assert isinstance(node.layer, spec.Matmul)
    (*before, rows, inner), (*also, other, columns) = inputs
    if node.layer.transpose_second:
        other, columns = columns, other
    _keep(channels, node, inner, other)
    leading = _joined(channels, node, [before, also])
    return Traced((*leading, rows, columns))


@_rule(spec.PixelShuffle)
def _pixel_shuffle(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    """The channels of a square of pixels go together."""
    assert isinstance(node.layer, spec.PixelShuffle)
    *others, last = inputs[0]
    _keep(channels, node, *others)
    squares = last.reshape(-1, node.layer.factor**2)
    for column in squares.T[1:]:
        channels.join(squares[:, 0], column, f"'{node.name}' makes a square of them")
    return Traced((*no_channels(*node.output_shape[:-1]), squares[:, 0]))


@_rule(spec.PixelUnshuffle)
def _pixel_unshuffle(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    assert isinstance(node.layer, spec.PixelUnshuffle)
    *others, last = inputs[0]
    _keep(channels, node, *others)
    return Traced((*no_channels(*node.output_shape[:-1]), np.repeat(last, node.layer.factor**2)))
