"""Convolutions. Images come channel last; a view makes them channels_last tensors, without a copy."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from unitrain.backends.contract import Settings
from unitrain.backends.torch.dense import LINEAR
from unitrain.backends.torch.registry import (
    Layout,
    Made,
    Slot,
    channels_first,
    channels_last,
    implements,
    weight_and_bias,
)
from unitrain.graph.graph import Node
from unitrain.spec.layers.conv import (
    Conv1d,
    Conv2d,
    ConvTranspose1d,
    ConvTranspose2d,
    DepthwiseConv1d,
    DepthwiseConv2d,
    SeparableConv1d,
    SeparableConv2d,
)
from unitrain.spec.layers.window import PadAmounts, transposed_crop

# (length, in, out) -> (out, in, length); (height, width, in, out) -> (out, in, height, width).
_KERNEL = {1: Layout((2, 1, 0)), 2: Layout((3, 2, 0, 1))}
_DEPTHWISE = {1: Layout((1, 2, 0), merged=True), 2: Layout((2, 3, 0, 1), merged=True)}
_TRANSPOSED = {1: Layout((1, 2, 0)), 2: Layout((2, 3, 0, 1))}


def split_padding(pads: PadAmounts) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Divide padding into what a convolution does itself, the same on both sides of an axis, and what comes first.

    Returns
    -------
    inside
        For each axis; zeros unless every axis is symmetric.
    before
        In the order of ``torch.nn.functional.pad``, last spatial axis first; empty when nothing is left.
    """
    if all(start == end for start, end in pads):
        return tuple(start for start, _ in pads), ()
    return (0,) * len(pads), tuple(amount for pair in reversed(pads) for amount in pair)


class _ChannelsLast:
    """Mixed into torch's convolutions: takes and gives ``[batch, *spatial, channel]``, pads unevenly first."""

    before: tuple[int, ...] = ()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve ``[batch, *spatial, channel]``."""
        first = channels_first(x)
        if self.before:
            first = functional.pad(first, self.before)
        y: torch.Tensor = super().forward(first)  # type: ignore[misc]  # torch's convolution stands behind the mixin
        return channels_last(y)


class ChannelsLastConv1d(_ChannelsLast, torch.nn.Conv1d):
    """``nn.Conv1d`` over ``[batch, length, channel]``."""


class ChannelsLastConv2d(_ChannelsLast, torch.nn.Conv2d):
    """``nn.Conv2d`` over ``[batch, height, width, channel]``."""


_CONV: dict[int, Any] = {1: ChannelsLastConv1d, 2: ChannelsLastConv2d}


def _windowed(layer: Any, node: Node, filters: int, groups: int, bias: bool) -> torch.nn.Module:
    inside, before = split_padding(layer.pads(node.input_shapes[0]))
    module: torch.nn.Module = _CONV[layer.axes](
        node.input_shapes[0][-1],
        filters,
        layer.kernel_size,
        stride=layer.strides,
        padding=inside,
        dilation=layer.dilation,
        groups=groups,
        bias=bias,
    )
    module.before = before  # type: ignore[assignment]  # a plain tuple, not a submodule
    return module


@implements(Conv1d, Conv2d)
def convolution(layer: Conv1d | Conv2d, node: Node, settings: Settings) -> Made:
    """torch's convolution, with ``same`` padding made explicit."""
    module = _windowed(layer, node, layer.filters, layer.groups, layer.use_bias)
    return Made(module, weight_and_bias(_KERNEL[layer.axes], layer.use_bias))


@implements(DepthwiseConv1d, DepthwiseConv2d)
def depthwise_convolution(layer: DepthwiseConv1d | DepthwiseConv2d, node: Node, settings: Settings) -> Made:
    """A convolution with a group for each channel."""
    channels = node.input_shapes[0][-1]
    module = _windowed(layer, node, channels * layer.multiplier, channels, layer.use_bias)
    return Made(module, weight_and_bias(_DEPTHWISE[layer.axes], layer.use_bias))


class SeparableConv(torch.nn.Sequential):
    """A ``depthwise`` convolution, then a ``pointwise`` ``nn.Linear`` over the channels."""


@implements(SeparableConv1d, SeparableConv2d)
def separable_convolution(layer: SeparableConv1d | SeparableConv2d, node: Node, settings: Settings) -> Made:
    """Both parts as submodules."""
    channels = node.input_shapes[0][-1]
    module = SeparableConv()
    module.add_module("depthwise", _windowed(layer, node, channels * layer.multiplier, channels, bias=False))
    module.add_module("pointwise", torch.nn.Linear(channels * layer.multiplier, layer.filters, bias=layer.use_bias))
    slots = {
        "depthwise_kernel": Slot("depthwise.weight", _DEPTHWISE[layer.axes]),
        "pointwise_kernel": Slot("pointwise.weight", LINEAR),
    }
    if layer.use_bias:
        slots["bias"] = Slot("pointwise.bias")
    return Made(module, slots)


class _TransposedChannelsLast:
    """Mixed into torch's transposed convolutions: cuts (or fills) the full output to the pinned size."""

    starts: tuple[int, ...]
    sizes: tuple[int, ...]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Spread ``[batch, *spatial, channel]``."""
        bias: torch.Tensor | None = self.bias  # type: ignore[attr-defined]  # torch's module behind the mixin
        spread = functional.conv_transpose1d if len(self.sizes) == 1 else functional.conv_transpose2d
        full = channels_last(
            spread(channels_first(x), self.weight, stride=self.stride)  # type: ignore[attr-defined]  # as above
        )
        for axis, (start, size) in enumerate(zip(self.starts, self.sizes, strict=True), start=1):
            full = full.narrow(axis, start, min(size, full.shape[axis] - start))
        missing = [
            amount for axis in range(len(self.sizes), 0, -1) for amount in (0, self.sizes[axis - 1] - full.shape[axis])
        ]
        if any(missing):
            full = functional.pad(full, (0, 0, *missing))
        return full if bias is None else full + bias


class ChannelsLastConvTranspose1d(_TransposedChannelsLast, torch.nn.ConvTranspose1d):
    """``nn.ConvTranspose1d`` over ``[batch, length, channel]``."""


class ChannelsLastConvTranspose2d(_TransposedChannelsLast, torch.nn.ConvTranspose2d):
    """``nn.ConvTranspose2d`` over ``[batch, height, width, channel]``."""


@implements(ConvTranspose1d, ConvTranspose2d)
def transposed_convolution(layer: ConvTranspose1d | ConvTranspose2d, node: Node, settings: Settings) -> Made:
    """The full transposed convolution, of which the pinned part is kept."""
    axes = len(layer.kernel_size)
    kind: Any = ChannelsLastConvTranspose1d if axes == 1 else ChannelsLastConvTranspose2d
    module = kind(node.input_shapes[0][-1], layer.filters, layer.kernel_size, stride=layer.strides, bias=layer.use_bias)
    module.starts = tuple(
        transposed_crop(kernel, stride, layer.padding)
        for kernel, stride in zip(layer.kernel_size, layer.strides, strict=True)
    )
    module.sizes = node.output_shape[:-1]
    return Made(module, weight_and_bias(_TRANSPOSED[axes], layer.use_bias))
