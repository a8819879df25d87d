"""Where a right computation may lose more than NumPy's: the long sums, which NumPy adds in pairs and others do not."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from unitrain.graph.graph import Graph, Node
from unitrain.spec.layers import BatchNorm, GlobalAveragePool, GroupNorm, LayerNorm, RmsNorm, Softmax
from unitrain.verify.verdict import sum_growth


def layer_growth(node: Node, batch: int, training: bool) -> float:
    """Return the growth for a layer's results and its gradients by inputs; matrix products grow alike everywhere."""
    shape, layer = node.input_shapes[0], node.layer
    match layer:
        case BatchNorm():
            terms = batch * prod(shape[:-1]) if training else 1
        case LayerNorm():
            terms = prod(shape[-layer.axes :])
        case GroupNorm():
            terms = prod(shape) // layer.groups
        case RmsNorm():
            terms = shape[-1]
        case GlobalAveragePool():
            terms = prod(shape[:-1])
        case Softmax():
            terms = shape[layer.axis]
        case _:
            terms = 1
    return sum_growth(terms)


def parameter_growth(node: Node, batch: int) -> float:
    """Return the growth for gradients by a layer's parameters: sums over the batch and all positions."""
    return max(sum_growth(batch * prod(node.output_shape[:-1])), layer_growth(node, batch, training=True))


def inherited_growth(graph: Graph, batch: int, training: bool) -> Mapping[str, float]:
    """Return the growth of every node's result when all layers before it have added to it."""
    growth = dict.fromkeys(graph.inputs, 1.0)
    for node in graph.nodes:
        growth[node.name] = max(layer_growth(node, batch, training), *(growth[name] for name in node.inputs))
    return growth
