"""Where a right computation may lose more than NumPy's: the long sums, which NumPy adds in pairs and others do not."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from unitrain.backends.contract import Precision
from unitrain.backends.precision import HALF
from unitrain.graph.graph import Graph
from unitrain.graph.node import Node
from unitrain.spec.layers import BatchNorm, GlobalAveragePool, GroupedNorm, LayerNorm, RmsNorm, Softmax, SqueezeExcite
from unitrain.verify.verdict import sum_growth


def layer_growth(node: Node, batch: int, training: bool, precision: Precision = "float32") -> float:
    """Return the growth for a layer's results and its gradients by inputs; matrix products grow alike everywhere.

    In 16 bits the sums over a window count too: frameworks add up its elements in 16 bits on the way back. Measured in
    bfloat16, by input: torch's depthwise convolution 2.8 and 4.4 for windows of 81 and 225 elements, where this allows
    1.6 and 2.7 times the bound; Keras' convolution 2.6 for 25, for which the bound alone is enough.
    """
    shape, layer = node.input_shapes[0], node.layer
    match layer:
        case BatchNorm():
            terms = batch * prod(shape[:-1]) if training else 1
        case LayerNorm():
            terms = prod(shape[-layer.axes :])
        case GroupedNorm():
            terms = prod(shape) // layer.groups_of(shape[-1])
        case RmsNorm():
            terms = shape[-1]
        case GlobalAveragePool() | SqueezeExcite():
            terms = prod(shape[:-1])
        case Softmax():
            terms = shape[layer.axis]
        case _:
            terms = prod(getattr(layer, "kernel_size", ())) if precision in HALF else 1
    return sum_growth(terms)


def parameter_growth(node: Node, batch: int, precision: Precision = "float32") -> float:
    """Return the growth for gradients by a layer's parameters: sums over the batch and all positions."""
    summed = sum_growth(batch * prod(node.output_shape[:-1]))
    return max(summed, layer_growth(node, batch, training=True, precision=precision))


def inherited_growth(graph: Graph, batch: int, training: bool, precision: Precision = "float32") -> Mapping[str, float]:
    """Return the growth of every node's result when all layers before it have added to it."""
    growth = dict.fromkeys(graph.inputs, 1.0)
    for node in graph.nodes:
        growth[node.name] = max(layer_growth(node, batch, training, precision), *(growth[name] for name in node.inputs))
    return growth
