"""Layers that move elements and compute nothing."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from unitrain.backends.contract import Settings
from unitrain.backends.torch.registry import Made, channels_first, channels_last, implements
from unitrain.graph.graph import Node
from unitrain.spec.layers.shape import Flatten, Padding, Permute, Reshape, Upsample1d, Upsample2d


class Rearrange(torch.nn.Module):
    """Gives each sample's elements another shape."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Reshape ``[batch, ...]``."""
        return x.reshape(-1, *self.shape)


class PermuteAxes(torch.nn.Module):
    """Reorders the axes behind the batch."""

    def __init__(self, axes: tuple[int, ...]) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Reorder ``[batch, ...]``."""
        return x.permute(0, *(axis + 1 for axis in self.axes))


class Pad(torch.nn.Module):
    """Adds elements at the ends of the axes behind the batch."""

    def __init__(self, layer: Padding, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.mode, self.value = layer.mode, layer.value
        self.amounts = layer.all_amounts(len(shape))
        # Reflected and edge elements are picked by index, along one axis after the other.
        self.indices = [
            np.pad(np.arange(extent), pads, mode=self.mode).tolist() if any(pads) and self.mode != "constant" else None
            for extent, pads in zip(shape, self.amounts, strict=True)
        ]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pad ``[batch, ...]``."""
        if self.mode == "constant":
            order = tuple(amount for pads in reversed(self.amounts) for amount in pads)
            return functional.pad(x, order, value=self.value)
        for axis, index in enumerate(self.indices, start=1):
            if index is not None:
                x = x.index_select(axis, torch.tensor(index, device=x.device))
        return x


class Upsample(torch.nn.Module):
    """Enlarges the spatial axes by whole factors."""

    def __init__(self, factor: tuple[int, ...], bilinear: bool) -> None:
        super().__init__()
        self.factor, self.bilinear = factor, bilinear

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Enlarge ``[batch, *spatial, channel]``."""
        if self.bilinear:
            size = [extent * times for extent, times in zip(x.shape[1:-1], self.factor, strict=True)]
            return channels_last(functional.interpolate(channels_first(x), size, mode="bilinear", align_corners=False))
        for axis, times in enumerate(self.factor, start=1):
            x = x.repeat_interleave(times, dim=axis)
        return x


@implements(Flatten, Reshape)
def rearrange(layer: Flatten | Reshape, node: Node, settings: Settings) -> Made:
    """Flattening is reshaping to one axis."""
    return Made(Rearrange(node.output_shape), {})


@implements(Permute)
def permute(layer: Permute, node: Node, settings: Settings) -> Made:
    """A view."""
    return Made(PermuteAxes(layer.axes), {})


@implements(Padding)
def padding(layer: Padding, node: Node, settings: Settings) -> Made:
    """Constant, reflected or repeated edges."""
    return Made(Pad(layer, node.input_shapes[0]), {})


@implements(Upsample1d, Upsample2d)
def upsample(layer: Upsample1d | Upsample2d, node: Node, settings: Settings) -> Made:
    """Nearest by repetition; bilinear with half-pixel centres."""
    bilinear = isinstance(layer, Upsample2d) and layer.interpolation == "bilinear"
    return Made(Upsample(layer.factor, bilinear), {})
