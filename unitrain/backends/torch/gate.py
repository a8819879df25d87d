"""Gated linear units."""

from __future__ import annotations

import torch

from unitrain.backends.contract import Settings
from unitrain.backends.torch.registry import Made, implements
from unitrain.backends.torch.runtime import widened
from unitrain.graph.node import Node
from unitrain.spec.layers.gate import Glu

_GATES: dict[str, type[torch.nn.Module]] = {
    "sigmoid": torch.nn.Sigmoid,
    "silu": torch.nn.SiLU,
    "gelu": torch.nn.GELU,
    "relu": torch.nn.ReLU,
    "identity": torch.nn.Identity,
}


class GatedUnit(torch.nn.Module):
    """The first half of the last axis, gated by the second; in float32 where the numbers have 16 bits."""

    def __init__(self, gate: torch.nn.Module) -> None:
        super().__init__()
        self.gate = gate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Halve ``[batch, ..., channel]``."""
        a, b = widened(x).chunk(2, dim=-1)
        y: torch.Tensor = a * self.gate(b)
        return y.to(x.dtype)


@implements(Glu)
def glu(layer: Glu, node: Node, settings: Settings) -> Made:
    """With a sigmoid what ``nn.GLU`` computes."""
    return Made(GatedUnit(_GATES[layer.gate]()), {})
