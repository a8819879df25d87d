"""Layers that give an image another size."""

from __future__ import annotations

import torch

from unitrain.backends.contract import Settings
from unitrain.backends.torch.registry import Made, implements
from unitrain.backends.torch.runtime import widened
from unitrain.backends.torch.window import channels_first, channels_last
from unitrain.graph.node import Node
from unitrain.spec.layers.resize import PixelShuffle, PixelUnshuffle, Resize, linear_sources, nearest_sources


class ChannelsLastResize(torch.nn.Module):
    """Nearest or bilinear interpolation of ``[batch, height, width, channel]`` to any size.

    torch computes in float32 where a pixel lies: at ratios that are no powers of two it may take the next one.
    """

    def __init__(self, layer: Resize, node: Node) -> None:
        super().__init__()
        self.size, self.interpolation = node.output_shape[:2], layer.interpolation
        for axis, (extent, outputs) in enumerate(zip(node.input_shapes[0], self.size, strict=False), start=1):
            if self.interpolation == "nearest":
                tables = {"source": torch.tensor(nearest_sources(extent, outputs))}
            else:
                below, above, shares = linear_sources(extent, outputs)
                # Whole numbers, which keep their value when the module is brought to 16 bits.
                parts = torch.tensor([round(2 * outputs * share) for share in shares])
                tables = {
                    "source": torch.tensor(below),
                    "other": torch.tensor(above),
                    "parts": parts.reshape(-1, *(1,) * (3 - axis)),
                }
            for name, table in tables.items():
                self.register_buffer(f"{name}_{axis}", table, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Resize the height, then the width."""
        y = widened(x)
        for axis in (1, 2):
            first = y.index_select(axis, self.get_buffer(f"source_{axis}"))
            if self.interpolation == "bilinear":
                share = self.get_buffer(f"parts_{axis}").to(y.dtype) / (2 * self.size[axis - 1])
                other = y.index_select(axis, self.get_buffer(f"other_{axis}"))
                first = first * (1 - share) + other * share
            y = first
        return y.to(x.dtype)

    def extra_repr(self) -> str:
        """Show the size and what lies between."""
        return f"size={self.size}, {self.interpolation}"


class ChannelsLastPixelShuffle(torch.nn.PixelShuffle):
    """``nn.PixelShuffle`` over ``[batch, height, width, channel]``."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Arrange channels as pixels."""
        return channels_last(super().forward(channels_first(x)))


class ChannelsLastPixelUnshuffle(torch.nn.PixelUnshuffle):
    """``nn.PixelUnshuffle`` over ``[batch, height, width, channel]``."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Arrange pixels as channels."""
        return channels_last(super().forward(channels_first(x)))


@implements(Resize)
def resize(layer: Resize, node: Node, settings: Settings) -> Made:
    """By indices and shares."""
    return Made(ChannelsLastResize(layer, node), {})


@implements(PixelShuffle)
def pixel_shuffle(layer: PixelShuffle, node: Node, settings: Settings) -> Made:
    """torch's own module."""
    return Made(ChannelsLastPixelShuffle(layer.factor), {})


@implements(PixelUnshuffle)
def pixel_unshuffle(layer: PixelUnshuffle, node: Node, settings: Settings) -> Made:
    """torch's own module."""
    return Made(ChannelsLastPixelUnshuffle(layer.factor), {})
