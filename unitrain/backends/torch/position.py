"""Where a token stands in its sequence, added to what it is."""

from __future__ import annotations

import torch

from unitrain.backends.contract import Settings
from unitrain.backends.tables import sinusoidal_waves
from unitrain.backends.torch.registry import Made, Slot, implements
from unitrain.backends.torch.runtime import widened
from unitrain.graph.node import Node
from unitrain.spec.layers.position import PositionEmbedding, SinusoidalPosition


class LearnedPosition(torch.nn.Module):
    """Adds a row of a table to each position of ``[batch, length, channel]``; of 16 bits in float32."""

    def __init__(self, positions: int, channels: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.empty(positions, channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add the first rows."""
        return (widened(x) + widened(self.weight[: x.shape[1]])).to(x.dtype)


class FixedPosition(torch.nn.Module):
    """Adds fixed numbers to each position of ``[batch, length, channel]``."""

    waves: torch.Tensor

    def __init__(self, waves: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("waves", waves, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add them."""
        return x + self.waves.to(x.dtype)


@implements(PositionEmbedding)
def position_embedding(layer: PositionEmbedding, node: Node, settings: Settings) -> Made:
    """torch has no such module."""
    return Made(LearnedPosition(*layer.parameters(*node.input_shapes)["table"].shape), {"table": Slot("weight")})


@implements(SinusoidalPosition)
def sinusoidal_position(layer: SinusoidalPosition, node: Node, settings: Settings) -> Made:
    """The waves are computed once, in float64."""
    return Made(FixedPosition(torch.from_numpy(sinusoidal_waves(node.input_shapes[0], layer.base, layer.layout))), {})
