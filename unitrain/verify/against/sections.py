"""One or a few layers of the spec by themselves, computed by the reference and its yardsticks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from unitrain.backends.contract import Arrays
from unitrain.backends.numpy.execution import Mode, backward, forward, zeros_where_missing
from unitrain.graph.graph import Graph
from unitrain.graph.node import Node
from unitrain.spec.model import InputSpec
from unitrain.verify.experiments.layers import STEP
from unitrain.verify.runner import Cast, Runner
from unitrain.verify.subject import graph_dtype
from unitrain.weights.random import stream

Array = npt.NDArray[Any]


def undropped(graph: Graph) -> Graph:
    """Return the graph in which nothing is dropped: masks of two generators are never compared."""
    nodes = tuple(
        node
        if node.layer.drop_field is None
        else replace(node, layer=node.layer.model_copy(update={node.layer.drop_field: 0.0}))
        for node in graph.nodes
    )
    return replace(graph, nodes=nodes)


def section_graph(graph: Graph, nodes: Sequence[Node]) -> Graph:
    """Return a graph of some nodes alone, whose inputs are what they read from outside, by the same names."""
    own = {node.name for node in nodes}
    sources = dict.fromkeys(name for node in nodes for name in node.inputs if name not in own)
    inputs = {
        name: InputSpec(shape=graph.shape(name), dtype="integer" if graph_dtype(graph, name) == "integer" else "float")
        for name in sources
    }
    names = {canonical for node in nodes for canonical in node.parameters.values()}
    parameters = {name: parameter for name, parameter in graph.parameters.items() if name in names}
    return Graph(graph.name, inputs, tuple(nodes), {nodes[-1].name: nodes[-1].name}, parameters)


@dataclass(frozen=True)
class Computed:
    """What one runner computed for a graph.

    Parameters
    ----------
    values
        Results by node.
    by_input, by_parameter
        Gradients, by input and by canonical name.
    changes
        Changes of running statistics, by canonical name.
    by_node
        Gradients by the results of the nodes.
    """

    values: Mapping[str, Array]
    by_input: Mapping[str, Array] = field(default_factory=dict)
    by_parameter: Mapping[str, Array] = field(default_factory=dict)
    changes: Mapping[str, Array] = field(default_factory=dict)
    by_node: Mapping[str, Array] = field(default_factory=dict)


def compute(
    runner: Runner,
    graph: Graph,
    weights: Arrays,
    inputs: Arrays,
    training: bool,
    upstream: Arrays | None = None,
) -> Computed:
    """Let NumPy compute a graph in a runner's precision; ``upstream`` are gradients by its outputs."""
    purpose = f"section {'.'.join(graph.outputs)} {training}"
    own = runner.given({name: weights[name] for name in graph.parameters}, purpose)
    given = runner.given({name: inputs[name] for name in graph.inputs}, purpose)
    done = forward(
        graph, own, given, Mode(training, runner.seed, STEP), differentiate=True, input_gradients=True, keep=True
    )
    values = {node.name: done.values[node.name] for node in graph.nodes}
    changes = {name: done.updates[name] - own[name] for name in done.updates}
    if upstream is None:
        return Computed(values, changes=changes)
    by_node: dict[str, Array] = {}
    gradients = runner.given(
        {name: upstream[name] for name in graph.outputs if name in upstream}, f"{purpose} upstream"
    )
    by_input, by_parameter = backward(done, gradients, by_node)
    floats = [name for name, item in graph.inputs.items() if item.dtype == "float"]
    return Computed(
        values,
        zeros_where_missing(by_input, given, floats),
        zeros_where_missing(by_parameter, own, graph.trainable),
        changes,
        by_node,
    )


@dataclass
class Expected:
    """What the reference and the yardsticks compute for sections, each given the reference's own numbers.

    Parameters
    ----------
    graph, weights
        The spec and the canonical weights.
    cast
        The reference and the yardsticks.
    inputs, output_gradients
        One batch, and gradients by the outputs.
    training
        The mode.
    """

    graph: Graph
    weights: Arrays
    cast: Cast
    inputs: Arrays
    output_gradients: Arrays
    training: bool
    given: dict[str, Array] = field(init=False)
    upstream: dict[str, Array] = field(init=False)
    _sections: dict[tuple[str, ...], list[Computed]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        reference = self.cast.reference
        whole = compute(reference, self.graph, self.weights, self.inputs, self.training, self.output_gradients)
        self.given = {name: _narrow(array) for name, array in {**self.inputs, **whole.values}.items()}
        self.upstream = {}
        for node in self.graph.nodes:
            if node.dtype != "float":
                continue
            gradient = whole.by_node.get(node.name)
            if gradient is None or not np.any(_narrow(gradient)):
                drawn = stream(reference.seed, "verify", "upstream", node.name)
                gradient = drawn.normal(size=whole.values[node.name].shape)
            self.upstream[node.name] = _narrow(gradient)

    def section(self, nodes: Sequence[Node]) -> list[Computed]:
        """Return what the reference computes for some nodes by themselves, and behind it what the yardsticks do."""
        key = tuple(node.name for node in nodes)
        if key not in self._sections:
            graph = section_graph(self.graph, nodes)
            upstream = {key[-1]: self.upstream[key[-1]]} if key[-1] in self.upstream else None
            self._sections[key] = [
                compute(runner, graph, self.weights, self.given, self.training, upstream)
                for runner in (self.cast.reference, *self.cast.yardsticks)
            ]
        return self._sections[key]

    def whole(self) -> list[Computed]:
        """Return what the reference computes for the whole model, and behind it what the yardsticks do."""
        return [
            compute(runner, self.graph, self.weights, self.inputs, self.training, self.output_gradients)
            for runner in (self.cast.reference, *self.cast.yardsticks)
        ]


def _narrow(array: Array) -> Array:
    return array.astype(np.float32) if array.dtype.kind == "f" else array
