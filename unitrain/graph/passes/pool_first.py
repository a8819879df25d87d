"""Max pooling before ReLU: the same numbers from fewer elements."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from unitrain.graph.graph import Graph
from unitrain.graph.node import Node
from unitrain.spec.layers.activation import Relu
from unitrain.spec.layers.pool import MaxPool1d, MaxPool2d, MaxPool3d


def pool_first(graph: Graph) -> Graph:
    """Exchange every ReLU with the max pooling that alone reads it.

    Exact, bit for bit: max(relu(a), relu(b)) = relu(max(a, b)), padding being -infinity and no window being padding
    alone (`spec.layers.pool` refuses that). Where the maximum is positive the first element that has it is the same
    one, and gets the gradient; where it is not, the gradient is 0 either way.

    The two nodes exchange layers and keep their names, so that what reads the second, or is named as an output,
    finds the same values; the first's become the pooled ones before ReLU.
    """
    readers = Counter(name for node in graph.nodes for name in node.inputs)
    readers.update(graph.outputs.values())
    nodes = {node.name: node for node in graph.nodes}
    for pool in graph.nodes:
        relu = nodes.get(pool.inputs[0])
        if relu is None or not _exchangeable(relu, pool, readers):
            continue
        nodes[relu.name] = replace(relu, layer=pool.layer, output_shape=pool.output_shape)
        nodes[pool.name] = replace(pool, layer=relu.layer, input_shapes=(pool.output_shape,))
    return replace(graph, nodes=tuple(nodes.values()))


def _exchangeable(relu: Node, pool: Node, readers: Counter[str]) -> bool:
    pools = isinstance(pool.layer, MaxPool1d | MaxPool2d | MaxPool3d)
    return isinstance(relu.layer, Relu) and pools and readers[relu.name] == 1
