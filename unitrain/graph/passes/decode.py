"""A causal language model, one token at a time: what attention has seen before comes in as arrays and grows.

A causal model gives the logits of every position at once, and of one new token needs only that token's. All layers but
attention treat positions apart, so the rewritten graph has a sequence of one token; attention becomes its projections
and products, with the keys and values of earlier tokens as inputs and those of this one as outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from unitrain.graph.graph import Graph
from unitrain.graph.node import Node
from unitrain.spec.layers import (
    Add,
    Attention,
    Concatenate,
    Dense,
    Divide,
    Dropout,
    Embedding,
    Glu,
    LayerNorm,
    LayerScale,
    LayerSpec,
    Matmul,
    Multiply,
    PositionEmbedding,
    Power,
    Reshape,
    RmsNorm,
    Scale,
    Shift,
    SinusoidalPosition,
    Softmax,
    Split,
    StochasticDepth,
    Subtract,
    TiedProjection,
)
from unitrain.spec.layers.activation import Activation
from unitrain.spec.layers.base import Parameter, Shape
from unitrain.spec.model import InputSpec

Array = npt.NDArray[np.float32]

# Layers that compute each position by itself, on the last axis or element by element.
_APART = (
    Add, Concatenate, Dense, Divide, Activation, Embedding, Glu, LayerNorm, LayerScale, Multiply, Power,
    RmsNorm, Scale, Shift, Subtract, TiedProjection,
)  # fmt: skip
_DROPPING = (Dropout, StochasticDepth)


@dataclass(frozen=True)
class Cache:
    """What one attention layer remembers.

    Parameters
    ----------
    layer
        The layer.
    keys, values
        Names of the inputs ``[group, length, channel]`` with those of earlier tokens.
    new_keys, new_values
        Names of the outputs ``[group, 1, channel]`` with those of this token.
    shape
        ``(group, length, channel)``.
    bias
        Name of the input ``[group, heads of the group, length + 1]`` that is added before the softmax, first for the
        earlier positions and then for the token itself: what is to be left out, and with ALiBi the distances.
    turn
        With rotary positions the names of the inputs ``[1, 1, channel]`` with cosines and sines.
    """

    layer: Attention
    keys: str
    values: str
    new_keys: str
    new_values: str
    shape: Shape
    bias: str
    turn: tuple[str, str] | None


@dataclass(frozen=True)
class Decoding:
    """A model of one step.

    Parameters
    ----------
    graph
        Its inputs are the token ``[1]``, the position ``[1]`` where positions are learned, and those that `caches` and
        `waves` name; its first output is the logits ``[1, vocabulary]``.
    renamed
        For each of its parameters that the model has too, the model's canonical name.
    constants
        Its other weights.
    tokens, position
        Names of those inputs; no position where none is needed.
    logits
        Name of that output.
    caches
        Of each attention layer.
    waves
        Input ``[1, channel]`` to the layer whose wave at this position it is.
    length
        How many tokens the model can see.
    """

    graph: Graph
    renamed: Mapping[str, str]
    constants: Mapping[str, Array]
    tokens: str
    position: str | None
    logits: str
    caches: tuple[Cache, ...]
    waves: Mapping[str, SinusoidalPosition]
    length: int

    def weights(self, weights: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Return the weights of the step from the model's."""
        return {**{name: weights[own] for name, own in self.renamed.items()}, **self.constants}


def decode_step(graph: Graph) -> Decoding | None:
    """Rewrite a model ``[length]`` to ``[length, vocabulary]``; None where a layer mixes positions in another way."""
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        return None
    ((source, given),) = graph.inputs.items()
    ((output, last),) = graph.outputs.items()
    if given.dtype != "integer" or len(given.shape) != 1 or graph.shape(last)[:-1] != given.shape:
        return None
    step = _Step(graph, given.shape[0])
    step.inputs[source] = InputSpec(shape=(1,), dtype="integer", low=given.low, high=given.high)
    for node in graph.nodes:
        if not step.take(node):
            return None
    outputs = {output: step.names.get(last, last)}
    for cache in step.caches:
        outputs |= {cache.new_keys: cache.new_keys, cache.new_values: cache.new_values}
    decoded = Graph(graph.name, step.inputs, tuple(step.nodes.values()), outputs, step.parameters)
    position = step.position if step.position in step.inputs else None
    return Decoding(
        decoded, step.renamed, step.constants, source, position, output, tuple(step.caches), step.waves, given.shape[0]
    )


@dataclass
class _Step:
    """The graph of one step, while it is built."""

    whole: Graph
    length: int
    inputs: dict[str, InputSpec] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    parameters: dict[str, Parameter] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    constants: dict[str, Array] = field(default_factory=dict)
    caches: list[Cache] = field(default_factory=list)
    waves: dict[str, SinusoidalPosition] = field(default_factory=dict)

    @property
    def position(self) -> str:
        """Name of the input with the position."""
        name = "position"
        while name in self.whole.inputs or any(node.name == name for node in self.whole.nodes):
            name += "_"
        return name

    def take(self, node: Node) -> bool:
        """Take over one layer; False where it cannot be."""
        layer = node.layer
        names = [self.names.get(name, name) for name in node.inputs]
        if isinstance(layer, _DROPPING):
            self.names[node.name] = names[0]
        elif isinstance(layer, Attention):
            if not layer.causal or layer.side_names():
                return False
            self._attention(node, layer, names[0])
        elif isinstance(layer, PositionEmbedding):
            rows, width = self.whole.parameters[node.parameters["table"]].shape
            self.input(self.position, (1,), "integer")
            table = self._part(f"{node.name}.row.table", node.parameters["table"])
            lookup = Embedding(vocabulary=rows, width=width)
            row = self.add(f"{node.name}.row", lookup, [self.position], {"table": table})
            self.names[node.name] = self.add(f"{node.name}.sum", Add(), [names[0], row])
        elif isinstance(layer, SinusoidalPosition):
            wave = self.input(f"{node.name}.wave", (1, node.output_shape[-1]))
            self.waves[wave] = layer
            self.add(node.name, Add(), [names[0], wave])
        elif isinstance(layer, _APART) and not (isinstance(layer, Embedding) and layer.table_per_position):
            last = len(node.output_shape) - 1
            if isinstance(layer, Concatenate | Softmax) and layer.axis % (last + 1) != last:
                return False
            if any(shape[:1] != (self.length,) for shape in node.input_shapes):
                return False
            self.add(node.name, layer, names, node.parameters)
        else:
            return False
        return True

    def input(self, name: str, shape: Shape, dtype: str = "float") -> str:
        """Declare an input."""
        self.inputs[name] = InputSpec.model_validate({"shape": shape, "dtype": dtype})
        return name

    def add(self, name: str, layer: LayerSpec, inputs: list[str], parameters: Mapping[str, str] | None = None) -> str:
        """Append a node; ``parameters`` are local to canonical names."""
        shapes = tuple(self.inputs[key].shape if key in self.inputs else self.nodes[key].output_shape for key in inputs)
        named = dict(parameters or {})
        for own in named.values():
            if own not in self.parameters:
                self._part(own, own)
        layer = layer.model_copy(update={"name": None, "inputs": None})
        self.nodes[name] = Node(name, layer, tuple(inputs), shapes, layer.output_shape(*shapes), "float", named)
        return name

    def _part(self, name: str, own: str) -> str:
        """Take over a parameter under a name, that of the node which owns it now."""
        self.parameters[name] = self.whole.parameters[own]
        self.renamed[name] = own
        return name

    def _attention(self, node: Node, layer: Attention, x: str) -> None:
        """Softmax over the products with the keys seen so far and the token's own, then the sum of the values."""
        channels, groups = layer.channels(*node.input_shapes), layer.groups
        share, name = layer.heads // groups, node.name
        turn = self._turn(layer, channels) if layer.position == "rotary" else None

        def projected(part: str, heads: Shape, turned: bool) -> str:
            units = self.whole.parameters[node.parameters[part]].shape[1]
            flat = self._dense(node, part, units, x)
            split = self.add(f"{name}.{part}_heads", Reshape(shape=(*heads, channels)), [flat])
            if turn is None or not turned:
                return split
            return self._turned(f"{name}.{part}", split, channels, layer.rotary_layout, turn)

        query = projected("query", (groups, share), True)
        key = projected("key", (groups, 1), True)
        value = projected("value", (groups, 1), False)
        keys = self.input(f"{name}.keys", (groups, self.length, channels))
        values = self.input(f"{name}.values", (groups, self.length, channels))
        if layer.position == "alibi":
            bias = self.input(f"{name}.bias", (groups, share, self.length + 1))
        else:
            bias = self.input("kept", (1, 1, self.length + 1))
        across = Matmul(transpose_second=True)
        seen = self.add(f"{name}.seen", across, [query, keys])
        own = self.add(f"{name}.own", across, [query, key])
        scores = self.add(f"{name}.scores", Concatenate(axis=-1), [seen, own])
        scaled = self.add(f"{name}.scaled", Scale(factor=1.0 / sqrt(channels)), [scores])
        biased = self.add(f"{name}.biased", Add(), [scaled, bias])
        weights = self.add(f"{name}.weights", Softmax(), [biased])
        parts = [
            self.add(f"{name}.weights{part}", Split(sizes=(self.length, 1), part=part), [weights]) for part in (0, 1)
        ]
        mixed = [
            self.add(f"{name}.mixed", Matmul(), [parts[0], values]),
            self.add(f"{name}.mixed_own", Matmul(), [parts[1], value]),
        ]
        total = self.add(f"{name}.total", Add(), mixed)
        joined = self.add(f"{name}.joined", Reshape(shape=(1, layer.heads * channels)), [total])
        self.names[name] = self._dense(node, "output", node.output_shape[-1], joined)
        self.caches.append(Cache(layer, keys, values, key, value, (groups, self.length, channels), bias, turn))

    def _dense(self, node: Node, part: str, units: int, x: str) -> str:
        name, biased = f"{node.name}.{part}", f"{part}_bias" in node.parameters
        named = {"kernel": self._part(f"{name}.kernel", node.parameters[part])}
        if biased:
            named["bias"] = self._part(f"{name}.bias", node.parameters[f"{part}_bias"])
        return self.add(name, Dense(units=units, use_bias=biased), [x], named)

    def _turn(self, layer: Attention, channels: int) -> tuple[str, str]:
        """Declare the cosines and sines of a kind of rotation."""
        kind = f"{layer.rotary_layout}_{channels}_{layer.rotary_base:g}"
        return self.input(f"cosines_{kind}", (1, 1, channels)), self.input(f"sines_{kind}", (1, 1, channels))

    def _turned(self, name: str, x: str, channels: int, layout: str, turn: tuple[str, str]) -> str:
        """``(a, b)`` becomes ``(a cos - b sin, b cos + a sin)``: x times cosines plus x swapped times sines."""
        swap, constant = Dense(units=channels, use_bias=False), f"{name}_swapped.kernel"
        self.parameters[constant] = swap.parameters((channels,))["kernel"]
        self.constants[constant] = _swap(channels, layout)
        swapped = self.add(f"{name}_swapped", swap, [x], {"kernel": constant})
        straight = self.add(f"{name}_cosines", Multiply(), [x, turn[0]])
        crossed = self.add(f"{name}_sines", Multiply(), [swapped, turn[1]])
        return self.add(f"{name}_turned", Add(), [straight, crossed])


def _swap(channels: int, layout: str) -> Array:
    """Return the matrix that turns ``(a, b)`` into ``(-b, a)``; products with it are exact."""
    half = channels // 2
    pairs = [(i, i + half) if layout == "half" else (2 * i, 2 * i + 1) for i in range(half)]
    matrix = np.zeros((channels, channels), np.float32)
    for a, b in pairs:
        matrix[b, a], matrix[a, b] = -1.0, 1.0
    return matrix
