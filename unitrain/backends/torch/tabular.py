"""Layers for tables of numbers."""

from __future__ import annotations

import torch

from unitrain.backends.contract import Settings
from unitrain.backends.torch.registry import Made, Slot, implements
from unitrain.backends.torch.runtime import widened
from unitrain.graph.node import Node
from unitrain.spec.layers.tabular import FeatureTokens


class NumberTokens(torch.nn.Module):
    """A token for each number: ``[batch, feature]`` to ``[batch, feature, width]``.

    In 16 bits it computes in float32, so that sums over the batch are rounded once.
    """

    def __init__(self, features: int, width: int, bias: bool) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.empty(features, width))
        self.bias = torch.nn.Parameter(torch.empty(features, width)) if bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scale and shift the direction of each feature."""
        y = widened(x)[..., None] * widened(self.weight)
        return (y if self.bias is None else y + widened(self.bias)).to(x.dtype)


@implements(FeatureTokens)
def feature_tokens(layer: FeatureTokens, node: Node, settings: Settings) -> Made:
    """torch has no such module."""
    module = NumberTokens(node.input_shapes[0][0], layer.width, layer.use_bias)
    return Made(module, {"kernel": Slot("weight"), **({"bias": Slot("bias")} if layer.use_bias else {})})
