"""Models on which right implementations differ by more than rounding, so that they show nothing: they are not drawn.

Two kinds are left out, and no others:

- Products of more than `DEGREE` factors of an input: they leave the range of float32, where float64 does not.
- A normalisation of fewer than `FEWEST` numbers. Of one number it leaves x - mean = 0, of two it leaves +1 and -1,
  whatever they were: every gradient is 0 but for rounding, and an optimizer that divides by the gradient's size, such
  as Adam, turns that rounding into steps of full length.
"""

from __future__ import annotations

from math import prod

from unitrain.graph.graph import Graph, Node
from unitrain.spec.layers import BatchNorm, GroupedNorm, LayerNorm, Matmul, Multiply, Power, RmsNorm

DEGREE, FEWEST = 6, 3


def well_conditioned(graph: Graph, batch: int) -> bool:
    """Tell whether a model with batches of ``batch`` samples is none of those above."""
    return max(_degrees(graph).values()) <= DEGREE and all(_normalised(node, batch) >= FEWEST for node in graph.nodes)


def _degrees(graph: Graph) -> dict[str, int]:
    """Return of how many factors the products at each node are."""
    degrees = dict.fromkeys(graph.inputs, 1)
    for node in graph.nodes:
        join = sum if isinstance(node.layer, (Multiply, Matmul)) else max
        degree = join([degrees[name] for name in node.inputs])
        if isinstance(node.layer, Power):
            degree *= max(1, int(abs(node.layer.exponent)))
        degrees[node.name] = degree
    return degrees


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
        case RmsNorm():
            return shape[-1]
        case _:
            return FEWEST
