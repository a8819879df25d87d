"""Takes a graph apart: every layer a branch of its own, given exactly what the reference gives it.

What fails in such a branch is wrong by itself and no echo of a layer before it. All branches stand in one graph, so
that a framework compiles them once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from unitrain.backends.contract import Arrays, Precision
from unitrain.backends.numpy.execution import Mode, backward, forward
from unitrain.backends.precision import HALF
from unitrain.graph.graph import Graph
from unitrain.graph.node import Node
from unitrain.spec.model import InputSpec
from unitrain.verify.kinks import with_extremes, with_kinks
from unitrain.verify.rounding import rounded, scaled_gradients
from unitrain.verify.subject import graph_dtype
from unitrain.weights.random import stream

Array = npt.NDArray[Any]


def input_name(node: str, position: int) -> str:
    """Return the name of an input of a layer in the graph of branches."""
    return f"{node}_input_{position}"


def branches(graph: Graph) -> Graph:
    """Return a graph in which every node reads inputs of its own and is an output.

    Nodes keep their names, which key dropout masks; nodes that share a layer get parameters of their own.
    """
    inputs: dict[str, InputSpec] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        names = tuple(input_name(node.name, position) for position in range(len(node.inputs)))
        for name, source, shape in zip(names, node.inputs, node.input_shapes, strict=True):
            inputs[name] = InputSpec(
                shape=shape, dtype="integer" if graph_dtype(graph, source) == "integer" else "float"
            )
        own = {local: f"{node.name}.{local}" for local in node.parameters}
        nodes.append(replace(node, inputs=names, parameters=own))
    parameters = {
        branch.parameters[local]: graph.parameters[canonical]
        for node, branch in zip(graph.nodes, nodes, strict=True)
        for local, canonical in node.parameters.items()
    }
    outputs = {node.name: node.name for node in graph.nodes}
    return Graph(graph.name, inputs, tuple(nodes), outputs, parameters)


def branch_weights(graph: Graph, weights: Arrays) -> dict[str, Array]:
    """Return the weights for `branches`: those of a shared layer once for each of its nodes."""
    return {
        f"{node.name}.{local}": weights[canonical]
        for node in graph.nodes
        for local, canonical in node.parameters.items()
    }


@dataclass(frozen=True)
class Given:
    """What the reference gives to each layer: float32, with numbers of the precision that is verified.

    Parameters
    ----------
    inputs
        By `input_name`.
    upstream
        Gradients by the outputs of the nodes of kind float, by node name.
    """

    inputs: Mapping[str, Array]
    upstream: Mapping[str, Array]


def reference_given(
    graph: Graph,
    weights: Arrays,
    inputs: Arrays,
    output_gradients: Arrays,
    mode: Mode,
    precision: Precision = "float32",
) -> Given:
    """Run the reference in float64, and keep what each layer is given: its inputs and its upstream gradient.

    Among the inputs of layers with kinks some are put on the kinks, see `kinks.with_kinks`, and in training some of
    layers that saturate far out. A layer on which no output depends, or whose gradient is zero throughout, is given a
    drawn gradient instead.

    Parameters
    ----------
    inputs
        One batch, by input name.
    output_gradients
        By output name.
    precision
        What the layers are to compute in: they are given numbers of it, of float64 those that float32 has too.
    """
    wide = {name: array.astype(np.float64) for name, array in weights.items()}
    prepared = {
        name: np.asarray(inputs[name]).astype(np.int32 if given.dtype == "integer" else np.float64)
        for name, given in graph.inputs.items()
    }
    done = forward(graph, wide, prepared, mode, differentiate=True, input_gradients=True, keep=True)
    upstream: dict[str, Array] = {}
    backward(done, {name: array.astype(np.float64) for name, array in output_gradients.items()}, upstream)
    # In inference no element lies far out: there results as large as those would hide faults of the others.
    far = mode.training and precision not in HALF
    with np.errstate(over="ignore"):
        given_inputs = {
            input_name(node.name, position): _narrow(_marked(node, _narrow(done.values[source]), far), precision)
            for node in graph.nodes
            for position, source in enumerate(node.inputs)
        }
        given_upstream = {}
        for node in graph.nodes:
            if node.dtype != "float":
                continue
            gradient = upstream.get(node.name)
            if gradient is None or not np.any(_narrow(gradient)):
                shape = done.values[node.name].shape
                gradient = stream(mode.seed, "verify", "upstream", node.name).normal(size=shape)
            given_upstream[node.name] = _narrow(gradient)
    return Given(given_inputs, scaled_gradients(given_upstream, "float32" if precision == "float64" else precision))


def _marked(node: Node, x: Array, far: bool) -> Array:
    marked = with_kinks(node, x)
    return with_extremes(node, marked) if far else marked


def _narrow(array: Array, precision: Precision = "float32") -> Array:
    return rounded(array.astype(np.float32), precision).astype(np.float32) if array.dtype.kind == "f" else array
