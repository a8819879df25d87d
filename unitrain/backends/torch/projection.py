"""The projection back onto a vocabulary."""

from __future__ import annotations

import torch

from unitrain.backends.contract import Settings
from unitrain.backends.torch.registry import SAME, Made, implements, weight_and_bias
from unitrain.graph.node import Node
from unitrain.spec.layers.projection import TiedProjection


@implements(TiedProjection)
def tied_projection(layer: TiedProjection, node: Node, settings: Settings) -> Made:
    """``nn.Linear`` holds its weight as a table has its rows."""
    module = torch.nn.Linear(node.input_shapes[0][-1], layer.units, bias=layer.use_bias)
    slots = weight_and_bias(SAME, layer.use_bias)
    return Made(module, {"table": slots.pop("kernel"), **slots})
