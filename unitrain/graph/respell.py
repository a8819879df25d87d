"""The way back from a `Graph` to a `ModelSpec`: all layers in one list, under their full names, with no blocks.

A pass that changes a graph hands its nodes to `rebuild`, so that what it gives is an ordinary model: resolved again,
every shape inferred anew, and written to YAML like any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from unitrain.graph.graph import Graph
from unitrain.graph.node import Node
from unitrain.graph.resolve import resolve
from unitrain.spec.layers import Reshape, Scale
from unitrain.spec.layers.base import LayerSpec, Shape
from unitrain.spec.model import ModelSpec, SharedCall


def spec_of(graph: Graph) -> ModelSpec:
    """Write a graph as a model specification that resolves to the same graph.

    Nodes, parameters and outputs keep their names, so weights fit both. Where an output is named after a block, a
    layer of this name that changes nothing is added.
    """
    shown = _shown_names(graph)
    layers = [_layer(node, shown) for node in graph.nodes if shown[node.name] == node.name]
    for output, node in graph.outputs.items():
        if shown.get(node, node) != output:
            layers.append(_unchanged(output, shown.get(node, node), graph.shape(node)))
    return ModelSpec(name=graph.name, inputs=dict(graph.inputs), layers=tuple(layers), outputs=tuple(graph.outputs))


def rebuild(graph: Graph, nodes: Iterable[Node], outputs: Mapping[str, str] | None = None) -> Graph:
    """Resolve changed nodes to a graph; of each its layer and inputs count, shapes are inferred.

    Parameters
    ----------
    graph
        Where inputs, outputs and name come from.
    nodes
        In any order.
    outputs
        Output name to node, where they change.
    """
    changed = replace(graph, nodes=tuple(nodes), outputs=dict(outputs or graph.outputs))
    return resolve(spec_of(changed))


def _unchanged(name: str, source: str, shape: Shape) -> LayerSpec:
    """Return a layer that gives what it reads; no shape is without axes, but one times a number is itself."""
    return (
        Reshape(name=name, inputs=(source,), shape=shape) if shape else Scale(name=name, inputs=(source,), factor=1.0)
    )


def _shown_names(graph: Graph) -> dict[str, str]:
    """Return under which name each node is read: a layer's own activation goes by the name of the layer."""
    nodes = {node.name: node for node in graph.nodes}
    shown = {name: name for name in nodes}
    for node in graph.nodes:
        activated = nodes.get(node.name.removesuffix("_activation"))
        if activated is None or activated is node or node.inputs != (activated.name,):
            continue
        if getattr(activated.layer, "activation", None) == node.layer.type:
            shown[node.name] = activated.name
    return shown


def _layer(node: Node, shown: Mapping[str, str]) -> LayerSpec:
    names = tuple(shown.get(name, name) for name in node.inputs)
    sides = node.layer.sides(names)
    main = names[: len(names) - sum(map(len, sides.values()))]
    # What is shared is what owns: tied parameters are named by a field of the layer.
    if node.owner != node.name:
        return SharedCall(name=node.name, inputs=names, layer=node.owner)
    changes: dict[str, Any] = {"name": node.name, "inputs": main, **sides}
    for local, field in node.layer.ties.items():
        if getattr(node.layer, field) is not None:
            changes[field] = node.parameters[local].rpartition(".")[0]
    return node.layer.model_copy(update=changes)
