"""Models on which right implementations differ by more than rounding, so that they show nothing: they are not drawn.

Four kinds are left out, and no others:

- Products of more than `DEGREE` factors of an input: they leave the range of float32, where float64 does not.
- A normalisation of fewer than `FEWEST` numbers. Of one number it leaves x - mean = 0, of two it leaves +1 and -1,
  whatever they were: every gradient is 0 but for rounding, and an optimizer that divides by the gradient's size, such
  as Adam, turns that rounding into steps of full length. So does the angle between two numbers.
- Quotients by anything but what a sigmoid or softplus keeps from 0, and by that of a quotient, which may lie so far
  below 0 that exponentials of exponentials leave every range.
- Recurrent layers whose recurrent kernel starts with one number everywhere, so large that the units together hand what
  a step has rounded on to the next one larger than it was.
"""

from __future__ import annotations

from math import prod

from unitrain.graph.graph import Graph
from unitrain.graph.node import Node
from unitrain.spec.initializers import Constant, Ones
from unitrain.spec.layers import (
    BatchNorm,
    Cosine,
    Divide,
    Dot,
    Glu,
    GroupedNorm,
    LayerNorm,
    Matmul,
    Multiply,
    Power,
    RecurrentLayer,
    RmsNorm,
    Sigmoid,
    Softplus,
)

DEGREE, FEWEST = 6, 3


def well_conditioned(graph: Graph, batch: int) -> bool:
    """Tell whether a model with batches of ``batch`` samples is none of those above."""
    layers = {node.name: node.layer for node in graph.nodes}
    return (
        max(_degrees(graph).values()) <= DEGREE
        and all(_normalised(node, batch) >= FEWEST for node in graph.nodes)
        and all(isinstance(layers.get(node.inputs[1]), (Sigmoid, Softplus)) for node in graph.nodes if _divides(node))
        and not any(node.inputs[1] in _behind_quotients(graph) for node in graph.nodes if _divides(node))
        and all(_gain(node) <= 1.0 for node in graph.nodes)
    )


def _divides(node: Node) -> bool:
    return isinstance(node.layer, Divide)


def _behind_quotients(graph: Graph) -> set[str]:
    """Return the nodes that are quotients or depend on one."""
    behind: set[str] = set()
    for node in graph.nodes:
        if _divides(node) or behind.intersection(node.inputs):
            behind.add(node.name)
    return behind


def _degrees(graph: Graph) -> dict[str, int]:
    """Return of how many factors the products at each node are."""
    degrees = dict.fromkeys(graph.inputs, 1)
    for node in graph.nodes:
        join = sum if isinstance(node.layer, (Multiply, Matmul, Dot)) else max
        degree = join([degrees[name] for name in node.inputs])
        if isinstance(node.layer, Power):
            degree *= max(1, int(abs(node.layer.exponent)))
        elif isinstance(node.layer, Glu):
            degree *= 2
        degrees[node.name] = degree
    return degrees


def _gain(node: Node) -> float:
    """Return by how much the units of a recurrent layer hand the same error of each on, where that can be told."""
    layer = node.layer
    if not isinstance(layer, RecurrentLayer):
        return 0.0
    match layer.recurrent_initializer:
        case Constant(value=value):
            return abs(value) * layer.units
        case Ones():
            return float(layer.units)
        case _:
            return 0.0


def _normalised(node: Node, batch: int) -> int:
    """Return over how many numbers a layer normalises; many for one that does not."""
    shape = node.input_shapes[0]
    match node.layer:
        case BatchNorm():
            return batch * prod(shape[:-1])
        case LayerNorm(axes=axes):
            return prod(shape[-axes:])
        case GroupedNorm() as norm:
            return prod(shape) // norm.groups_of(shape[-1])
        case RmsNorm() | Cosine():
            return shape[-1]
        case _:
            return FEWEST
