"""The forms in which Keras trains: a block of steps as TensorFlow's graph, its narrow convolutions by rows, or XLA."""

from __future__ import annotations

from unitrain.backends.contract import Candidate, Settings
from unitrain.backends.keras.conv_rows import pays
from unitrain.backends.precision import HALF
from unitrain.graph.graph import Graph
from unitrain.graph.node import Node
from unitrain.spec.layers import Conv2d

GRAPH, ROWS, XLA = "graph", "rows", "xla"


def candidates(graph: Graph, settings: Settings) -> tuple[Candidate, ...]:
    """List them, the standard form first."""
    found = [Candidate(GRAPH, "a block of steps in one graph")]
    # In 16 bits the sums over a row's windows would be rounded one by one.
    if settings.device == "cpu" and settings.precision not in HALF and any(map(_narrow, graph.nodes)):
        found.append(Candidate(ROWS, "the same, convolutions of few channels as products of whole rows"))
    return (*found, Candidate(XLA, "each step compiled by XLA", first_seconds=2.0))


def _narrow(node: Node) -> bool:
    """Tell whether a layer is a convolution that may pay by rows."""
    layer = node.layer
    if not isinstance(layer, Conv2d) or layer.groups > 1 or (*layer.strides, *layer.dilation) != (1, 1, 1, 1):
        return False
    _, width, channels = node.input_shapes[0]
    return pays(layer.kernel_size[1], channels, layer.filters, width)
