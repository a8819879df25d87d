"""One pass through a graph and back: values forward in topological order, gradients backward in reverse."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from unitrain.backends.contract import Arrays
from unitrain.backends.numpy.memory import Workspace
from unitrain.backends.numpy.registry import IMPLEMENTATIONS, Array, Backward, Context
from unitrain.graph.graph import Graph
from unitrain.graph.node import Node
from unitrain.weights.quantize import quantized_kernel


@dataclass(frozen=True)
class Mode:
    """How a pass is to run: training or inference, what keys its dropout masks, and where it is part of a batch.

    The fields are those of `registry.Context`.
    """

    training: bool = False
    seed: int = 0
    step: int = 0
    first: int = 0
    samples: int | None = None
    workspace: Workspace | None = None


@dataclass
class Pass:
    """What a forward pass leaves behind.

    Parameters
    ----------
    graph, inputs
        What was computed, and from what.
    values
        Results by node or input name: all of them, or the outputs' alone when the rest was not to be kept.
    updates
        New running statistics by canonical name, not yet taken over.
    steps
        The nodes that take part in the backward pass, in forward order, with their backward functions.
    """

    graph: Graph
    inputs: Mapping[str, Array]
    values: dict[str, Array]
    updates: dict[str, Array] = field(default_factory=dict)
    steps: list[tuple[Node, Backward]] = field(default_factory=list)

    def outputs(self) -> dict[str, Array]:
        """Return the results by output name."""
        return {output: self.values[name] for output, name in self.graph.outputs.items()}


def forward(
    graph: Graph,
    weights: Mapping[str, Array],
    inputs: Mapping[str, Array],
    mode: Mode,
    *,
    differentiate: bool = False,
    input_gradients: bool = False,
    keep: bool = False,
) -> Pass:
    """Compute every node.

    Parameters
    ----------
    differentiate
        Keep what `backward` needs.
    input_gradients
        Whether `backward` is to give the gradients by the graph's inputs too. Otherwise it stops at the first
        layers with trainable parameters.
    keep
        Keep every node's value, not only the outputs'.
    """
    values = dict(inputs)
    result = Pass(graph, inputs, values)
    wanted = _wanted(graph, input_gradients) if differentiate else frozenset()
    quantised = {name: parameter for name, parameter in graph.parameters.items() if parameter.quantizer is not None}
    rounded = {name: quantized_kernel(weights[name], parameter) for name, parameter in quantised.items()}
    current: Mapping[str, Array] = ChainMap(result.updates, rounded, dict(weights))
    last_reader = {name: node.name for node in graph.nodes for name in node.inputs}
    kept = set(graph.outputs.values())
    with np.errstate(all="ignore"):  # what is not finite is found in the loss, not in warnings
        for node in graph.nodes:
            context = Context(
                node,
                mode.training,
                mode.seed,
                mode.step,
                tuple(name in wanted for name in node.inputs),
                result.updates,
                mode.first,
                mode.samples,
                mode.workspace,
            )
            parameters = {local: current[canonical] for local, canonical in node.parameters.items()}
            arguments = [values[name] for name in node.inputs]
            values[node.name], back = IMPLEMENTATIONS[type(node.layer)](node.layer, context, parameters, *arguments)
            if node.name in wanted:
                result.steps.append((node, back))
            if not keep:
                for name in set(node.inputs) - kept:
                    if last_reader[name] == node.name:
                        del values[name]
    return result


def _wanted(graph: Graph, input_gradients: bool) -> frozenset[str]:
    """Return the names of the values by which the backward pass must differentiate."""
    wanted = {name for name, given in graph.inputs.items() if input_gradients and given.dtype == "float"}
    trainable = set(graph.trainable)
    for node in graph.nodes:
        if node.dtype == "float" and (
            not trainable.isdisjoint(node.parameters.values()) or not wanted.isdisjoint(node.inputs)
        ):
            wanted.add(node.name)
    return frozenset(wanted)


def backward(
    done: Pass, output_gradients: Mapping[str, Array], by_node: dict[str, Array] | None = None
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Differentiate ``sum over outputs of sum(gradient * output)``.

    Parameters
    ----------
    done
        A forward pass with ``differentiate``.
    output_gradients
        By output name; an output left out counts as zeros.
    by_node
        Takes up the gradient by each node's result, for those that know the whole of it.

    Returns
    -------
    inputs, parameters
        Gradients by the graph inputs, and by the trainable parameters, for those that the outputs depend on.
        Gradients of a value or parameter that is used several times are added up.
    """
    values: dict[str, Array] = {}
    parameters: dict[str, Array] = {}
    for output, gradient in output_gradients.items():
        _add(values, done.graph.outputs[output], gradient)
    with np.errstate(all="ignore"):
        while done.steps:
            node, back = done.steps.pop()  # the closure goes, and what it kept
            dy = values.pop(node.name, None)
            if dy is None:
                continue
            if by_node is not None:
                by_node[node.name] = dy
            input_gradients, local_gradients = back(dy)
            for name, dx in zip(node.inputs, input_gradients, strict=True):
                if dx is not None:
                    _add(values, name, dx)
            for local, gradient in local_gradients.items():
                _add(parameters, node.parameters[local], gradient)
    return {name: values[name] for name in done.graph.inputs if name in values}, parameters


def _add(sums: dict[str, Array], name: str, gradient: Array) -> None:
    sums[name] = sums[name] + gradient if name in sums else gradient


def zeros_where_missing(gradients: Mapping[str, Array], weights: Arrays, names: Collection[str]) -> dict[str, Array]:
    """Return the gradients by ``names``; what no output depends on has zeros."""
    return {name: gradients[name] if name in gradients else np.zeros_like(weights[name]) for name in names}
