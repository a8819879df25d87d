"""Fully connected layers."""

from __future__ import annotations

import torch

from unitrain.backends.contract import Settings
from unitrain.backends.torch.registry import Layout, Made, implements, weight_and_bias
from unitrain.graph.node import Node
from unitrain.spec.layers.dense import Dense

LINEAR = Layout(axes=(1, 0))


@implements(Dense)
def dense(layer: Dense, node: Node, settings: Settings) -> Made:
    """torch's own ``nn.Linear`` has the pinned meaning."""
    module = torch.nn.Linear(node.input_shapes[0][-1], layer.units, bias=layer.use_bias)
    return Made(module, weight_and_bias(LINEAR, layer.use_bias))
