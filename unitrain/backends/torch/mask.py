"""Masks: integers that say which positions count."""

from __future__ import annotations

import torch

from unitrain.backends.contract import Settings
from unitrain.backends.torch.registry import Made, implements
from unitrain.graph.node import Node
from unitrain.spec.layers.mask import LengthMask, PaddingMask


class PaddingOf(torch.nn.Module):
    """1 where a token is no ``padding``."""

    def __init__(self, padding: int) -> None:
        super().__init__()
        self.padding = padding

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Compare each token."""
        return (tokens != self.padding).to(tokens.dtype)


class MaskOfLength(torch.nn.Module):
    """1 at the first positions of ``[batch, length]``."""

    positions: torch.Tensor

    def __init__(self, length: int) -> None:
        super().__init__()
        self.register_buffer("positions", torch.arange(length), persistent=False)

    def forward(self, lengths: torch.Tensor) -> torch.Tensor:
        """Compare each position with the sample's length, ``[batch]`` or ``[batch, 1]``."""
        return (self.positions < lengths.view(-1, 1)).to(lengths.dtype)


@implements(PaddingMask)
def padding_mask(layer: PaddingMask, node: Node, settings: Settings) -> Made:
    """A comparison."""
    return Made(PaddingOf(layer.padding), {})


@implements(LengthMask)
def length_mask(layer: LengthMask, node: Node, settings: Settings) -> Made:
    """A comparison."""
    return Made(MaskOfLength(layer.length), {})
