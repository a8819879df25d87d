"""Parts of vision models."""

from __future__ import annotations

import torch

from unitrain.backends.contract import Settings
from unitrain.backends.torch.registry import Made, Slot, implements
from unitrain.backends.torch.runtime import widened
from unitrain.graph.graph import Node
from unitrain.spec.layers.vision import ClassToken, LayerScale


class ChannelScale(torch.nn.Module):
    """Multiplies each channel by a learned factor, in float32 where the numbers have 16 bits."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scale ``[batch, ..., channel]``."""
        return (widened(x) * widened(self.weight)).to(x.dtype)


class LeadingToken(torch.nn.Module):
    """Puts a learned token before a sequence."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.token = torch.nn.Parameter(torch.zeros(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Join ``[batch, 1, width]`` and ``[batch, length, width]``."""
        return torch.cat([self.token.expand(x.shape[0], 1, -1), x], dim=1)


@implements(LayerScale)
def layer_scale(layer: LayerScale, node: Node, settings: Settings) -> Made:
    """torch has none."""
    return Made(ChannelScale(node.input_shapes[0][-1]), {"scale": Slot("weight")})


@implements(ClassToken)
def class_token(layer: ClassToken, node: Node, settings: Settings) -> Made:
    """One token for all samples."""
    return Made(LeadingToken(node.input_shapes[0][-1]), {"token": Slot("token")})
