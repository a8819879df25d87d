"""Pooling over windows and over whole images or sequences, channel last."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from unitrain.backends.contract import Settings
from unitrain.backends.torch.registry import Made, implements
from unitrain.backends.torch.runtime import dtype_of, widened
from unitrain.backends.torch.window import channels_first, channels_last, in_torch_order, padded, pads_of, symmetric
from unitrain.graph.node import Node
from unitrain.spec.layers.conv import WindowedLayer
from unitrain.spec.layers.pool import (
    AveragePool1d,
    AveragePool2d,
    AveragePool3d,
    GlobalAveragePool,
    GlobalMaxPool,
    MaxPool1d,
    MaxPool2d,
    MaxPool3d,
)
from unitrain.spec.layers.window import PadAmounts


def _inside(layer: WindowedLayer, pads: PadAmounts) -> tuple[int, ...] | None:
    """Return the padding if torch's pooling can do it: the same on both sides, at most half a window."""
    inside = symmetric(pads)
    if inside is None or any(2 * pad > window for pad, window in zip(inside, layer.kernel_size, strict=True)):
        return None
    return inside


class ChannelsLastMaxPool1d(torch.nn.MaxPool1d):
    """``nn.MaxPool1d`` over ``[batch, length, channel]``; padding is minus infinity."""

    def __init__(self, layer: MaxPool1d) -> None:
        super().__init__(layer.kernel_size, layer.strides, dilation=layer.dilation)
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pool ``[batch, length, channel]``."""
        first, pads = channels_first(x), pads_of(self.layer, x)
        inside = _inside(self.layer, pads)
        if inside is None:
            first, inside = padded(first, pads, float("-inf")), (0,)
        return channels_last(functional.max_pool1d(first, self.kernel_size, self.stride, inside, self.dilation))


class ChannelsLastMaxPool2d(torch.nn.MaxPool2d):
    """``nn.MaxPool2d`` over ``[batch, height, width, channel]``; padding is minus infinity."""

    def __init__(self, layer: MaxPool2d) -> None:
        super().__init__(layer.kernel_size, layer.strides, dilation=layer.dilation)
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pool ``[batch, height, width, channel]``."""
        first, pads = channels_first(x), pads_of(self.layer, x)
        inside = _inside(self.layer, pads)
        if inside is None:
            first, inside = padded(first, pads, float("-inf")), (0, 0)
        return channels_last(functional.max_pool2d(first, self.kernel_size, self.stride, inside, self.dilation))


class ChannelsLastMaxPool3d(torch.nn.MaxPool3d):
    """``nn.MaxPool3d`` over ``[batch, depth, height, width, channel]``; padding is minus infinity."""

    def __init__(self, layer: MaxPool3d) -> None:
        super().__init__(layer.kernel_size, layer.strides, dilation=layer.dilation)
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pool ``[batch, depth, height, width, channel]``."""
        first, pads = channels_first(x), pads_of(self.layer, x)
        inside = _inside(self.layer, pads)
        if inside is None:
            first, inside = padded(first, pads, float("-inf")), (0, 0, 0)
        return channels_last(functional.max_pool3d(first, self.kernel_size, self.stride, inside, self.dilation))


@implements(MaxPool1d, MaxPool2d, MaxPool3d)
def max_pool(layer: MaxPool1d | MaxPool2d | MaxPool3d, node: Node, settings: Settings) -> Made:
    """torch's max pooling gives the gradient to the first of equals."""
    match layer:
        case MaxPool1d():
            return Made(ChannelsLastMaxPool1d(layer), {})
        case MaxPool2d():
            return Made(ChannelsLastMaxPool2d(layer), {})
        case MaxPool3d():
            return Made(ChannelsLastMaxPool3d(layer), {})


class ChannelsLastAveragePool1d(torch.nn.AvgPool1d):
    """``nn.AvgPool1d`` over ``[batch, length, channel]``."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pool ``[batch, length, channel]``."""
        return channels_last(super().forward(channels_first(x)))


class ChannelsLastAveragePool2d(torch.nn.AvgPool2d):
    """``nn.AvgPool2d`` over ``[batch, height, width, channel]``."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pool ``[batch, height, width, channel]``."""
        return channels_last(super().forward(channels_first(x)))


class ChannelsLastAveragePool3d(torch.nn.AvgPool3d):
    """``nn.AvgPool3d`` over ``[batch, depth, height, width, channel]``, in float32 where the numbers have 16 bits.

    torch's own has none for these on the CPU.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pool ``[batch, depth, height, width, channel]``."""
        return channels_last(super().forward(channels_first(widened(x)))).to(x.dtype)


class WindowMean(torch.nn.Module):
    """Mean of each window over the elements that are there, for the padding and dilation that torch has not."""

    counts: torch.Tensor

    def __init__(self, layer: AveragePool1d | AveragePool2d | AveragePool3d, node: Node, settings: Settings) -> None:
        super().__init__()
        self.layer = layer
        self.outputs = node.output_shape[:-1]
        pads = layer.pads(node.input_shapes[0])
        self.before = [0, 0, *in_torch_order(pads)]
        ones = np.pad(np.ones(node.input_shapes[0][:-1]), pads)
        counts = np.sum([ones[index] for index in self._taps()], axis=0)[..., None]
        self.register_buffer("counts", torch.tensor(counts, dtype=dtype_of(settings)), persistent=False)

    def _taps(self) -> list[tuple[slice, ...]]:
        """Return, for each element of the window, the slice of the padded input that all windows see there."""
        axes = list(zip(self.layer.dilation, self.outputs, self.layer.strides, strict=True))
        return [
            tuple(
                slice(tap * spread, tap * spread + (count - 1) * stride + 1, stride)
                for tap, (spread, count, stride) in zip(taps, axes, strict=True)
            )
            for taps in np.ndindex(*self.layer.kernel_size)
        ]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pool ``[batch, *spatial, channel]``."""
        x = functional.pad(x, self.before)
        return torch.stack([x[:, *index] for index in self._taps()]).sum(dim=0) / self.counts


@implements(AveragePool1d, AveragePool2d, AveragePool3d)
def average_pool(layer: AveragePool1d | AveragePool2d | AveragePool3d, node: Node, settings: Settings) -> Made:
    """torch's own pooling where it has the padding; dilation it never has."""
    inside = _inside(layer, layer.pads(node.input_shapes[0]))
    # torch refuses windows larger than a volume, whatever its padding.
    small = isinstance(layer, AveragePool3d) and any(
        extent < window for extent, window in zip(node.input_shapes[0], layer.kernel_size, strict=False)
    )
    if inside is None or small or set(layer.dilation) != {1}:
        return Made(WindowMean(layer, node, settings), {})
    if isinstance(layer, AveragePool1d):
        one = ChannelsLastAveragePool1d(layer.kernel_size, layer.strides, (inside[0],), count_include_pad=False)
        return Made(one, {})
    if isinstance(layer, AveragePool3d):
        three = (inside[0], inside[1], inside[2])
        return Made(ChannelsLastAveragePool3d(layer.kernel_size, layer.strides, three, count_include_pad=False), {})
    pads = (inside[0], inside[1])
    return Made(ChannelsLastAveragePool2d(layer.kernel_size, layer.strides, pads, count_include_pad=False), {})


class GlobalPool(torch.nn.Module):
    """Mean or largest element over all axes but batch and channel."""

    def __init__(self, mean: bool, keep_axes: bool) -> None:
        super().__init__()
        self.mean, self.keep_axes = mean, keep_axes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pool ``[batch, *spatial, channel]``."""
        flat = x.flatten(1, -2)
        # max(dim) gives the gradient to one element, the first; amax would share it out.
        pooled = flat.mean(dim=1) if self.mean else flat.max(dim=1).values
        return pooled.reshape(x.shape[0], *(1,) * (x.ndim - 2), x.shape[-1]) if self.keep_axes else pooled

    def extra_repr(self) -> str:
        """Show what is pooled, and how."""
        return f"{'mean' if self.mean else 'max'}, keep_axes={self.keep_axes}"


@implements(GlobalAveragePool, GlobalMaxPool)
def global_pool(layer: GlobalAveragePool | GlobalMaxPool, node: Node, settings: Settings) -> Made:
    """One pass over the flattened positions."""
    return Made(GlobalPool(isinstance(layer, GlobalAveragePool), layer.keep_axes), {})
