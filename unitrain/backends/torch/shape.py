"""Layers that move elements and compute nothing."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from unitrain.backends.contract import Settings
from unitrain.backends.torch.registry import Made, implements
from unitrain.backends.torch.window import channels_first, channels_last, in_torch_order
from unitrain.graph.node import Node
from unitrain.spec.layers.shape import Flatten, Padding, Permute, Reshape, Upsample1d, Upsample2d


class Rearrange(torch.nn.Module):
    """Gives each sample's elements another shape."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Reshape ``[batch, ...]``."""
        # Not len(x), which tracing would hold for a constant.
        return x.reshape(x.shape[0], *self.shape)

    def extra_repr(self) -> str:
        """Show the new shape, batch left out."""
        return f"shape={self.shape}"


class PermuteAxes(torch.nn.Module):
    """Reorders the axes behind the batch."""

    def __init__(self, axes: tuple[int, ...]) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Reorder ``[batch, ...]``."""
        return x.permute(0, *(axis + 1 for axis in self.axes))

    def extra_repr(self) -> str:
        """Show the order, batch left out."""
        return f"axes={self.axes}"


class Pad(torch.nn.Module):
    """Adds elements at the ends of the axes behind the batch."""

    def __init__(self, layer: Padding, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.mode, self.value = layer.mode, layer.value
        self.amounts = layer.all_amounts(len(shape))
        # Reflected and edge elements are picked by index, along one axis after the other.
        self.picked: list[int] = []
        for axis, (extent, pads) in enumerate(zip(shape, self.amounts, strict=True), start=1):
            if self.mode != "constant" and any(pads):
                index = torch.tensor(np.pad(np.arange(extent), pads, mode=self.mode))
                self.register_buffer(f"index_{axis}", index, persistent=False)
                self.picked.append(axis)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pad ``[batch, ...]``."""
        if self.mode == "constant":
            return functional.pad(x, in_torch_order(self.amounts), value=self.value)
        for axis in self.picked:
            x = x.index_select(axis, self.get_buffer(f"index_{axis}"))
        return x

    def extra_repr(self) -> str:
        """Show the amounts and what fills them."""
        return f"{self.amounts}, mode={self.mode!r}"


class Upsample(torch.nn.Module):
    """Enlarges the spatial axes by whole factors."""

    def __init__(self, factor: tuple[int, ...], bilinear: bool) -> None:
        super().__init__()
        self.factor, self.bilinear = factor, bilinear

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Enlarge ``[batch, *spatial, channel]``."""
        if self.bilinear and all(times & (times - 1) == 0 for times in self.factor):
            size = [extent * times for extent, times in zip(x.shape[1:-1], self.factor, strict=True)]
            return channels_last(functional.interpolate(channels_first(x), size, mode="bilinear", align_corners=False))
        if self.bilinear:
            # torch rounds the coordinate of every pixel by itself, which drifts where 1 / factor is not exact.
            return _interpolate(_interpolate(x, 1, self.factor[0]), 2, self.factor[1])
        for axis, times in enumerate(self.factor, start=1):
            x = x.repeat_interleave(times, dim=axis)
        return x

    def extra_repr(self) -> str:
        """Show the factors and what lies between."""
        return f"factor={self.factor}, {'bilinear' if self.bilinear else 'nearest'}"


def _interpolate(x: torch.Tensor, axis: int, factor: int) -> torch.Tensor:
    """Enlarge one axis: output ``factor * i + p`` lies at ``i + t``, t = (p + 1/2) / factor - 1/2."""
    size = x.shape[axis]
    before = torch.cat([x.narrow(axis, 0, 1), x.narrow(axis, 0, size - 1)], axis)
    after = torch.cat([x.narrow(axis, 1, size - 1), x.narrow(axis, size - 1, 1)], axis)
    phases = []
    for p in range(factor):
        t = (p + 0.5) / factor - 0.5
        phases.append((1 - abs(t)) * x + abs(t) * (before if t < 0 else after))
    return torch.stack(phases, axis + 1).flatten(axis, axis + 1)


@implements(Flatten, Reshape)
def rearrange(layer: Flatten | Reshape, node: Node, settings: Settings) -> Made:
    """torch's own ``nn.Flatten`` where there is an axis to flatten."""
    if isinstance(layer, Flatten) and node.input_shapes[0]:
        return Made(torch.nn.Flatten(), {})
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
