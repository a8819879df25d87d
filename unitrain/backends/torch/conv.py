"""Convolutions over channel-last tensors: torch's own modules, with the pinned padding."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.nn import functional

from unitrain.backends.contract import Settings
from unitrain.backends.torch.dense import LINEAR
from unitrain.backends.torch.registry import Layout, Made, Slot, implements, weight_and_bias
from unitrain.backends.torch.window import channels_first, channels_last, padded, pads_of, symmetric
from unitrain.graph.node import Node
from unitrain.spec.layers.conv import (
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    DepthwiseConv1d,
    DepthwiseConv2d,
    SeparableConv1d,
    SeparableConv2d,
)
from unitrain.spec.layers.window import transposed_crop

# (length, in, out) -> (out, in, length); (height, width, in, out) -> (out, in, height, width); the same with a depth.
KERNEL = {1: Layout((2, 1, 0)), 2: Layout((3, 2, 0, 1)), 3: Layout((4, 3, 0, 1, 2))}
# (height, width, channel, multiplier) -> (channel * multiplier, 1, height, width).
_DEPTHWISE = {1: Layout((1, 2, 0), merged=True), 2: Layout((2, 3, 0, 1), merged=True)}
# (height, width, in, out) -> (in, out, height, width).
_TRANSPOSED = {1: Layout((1, 2, 0)), 2: Layout((2, 3, 0, 1))}


_Window1d = Conv1d | DepthwiseConv1d | SeparableConv1d
_Window2d = Conv2d | DepthwiseConv2d | SeparableConv2d


class ChannelsLastConv1d(torch.nn.Conv1d):
    """``nn.Conv1d`` over ``[batch, length, channel]``."""

    def __init__(self, layer: _Window1d, channels: int, filters: int, groups: int, bias: bool) -> None:
        super().__init__(
            channels, filters, layer.kernel_size, layer.strides, 0, layer.dilation, groups=groups, bias=bias
        )
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve ``[batch, length, channel]``."""
        first, pads = channels_first(x), pads_of(self.layer, x)
        inside = symmetric(pads)
        if inside is None:
            first, inside = padded(first, pads), (0,)
        return channels_last(
            functional.conv1d(first, self.weight, self.bias, self.stride, inside, self.dilation, self.groups)
        )

    def extra_repr(self) -> str:
        """Show the spec's padding, which the module's own field cannot always hold."""
        shown: str = super().extra_repr()  # type: ignore[no-untyped-call]  # torch states no types here
        return f"{shown}, padding={self.layer.padding!r}"


class ChannelsLastConv2d(torch.nn.Conv2d):
    """``nn.Conv2d`` over ``[batch, height, width, channel]``."""

    rectifies = takes_first = True

    def __init__(self, layer: _Window2d, channels: int, filters: int, groups: int, bias: bool) -> None:
        super().__init__(
            channels, filters, layer.kernel_size, layer.strides, 0, layer.dilation, groups=groups, bias=bias
        )
        self.layer = layer
        # Windows of one element that stand apart read some elements and skip the others. They are chosen first: for
        # a few channels in channels-last order torch 2.13's backward pass on the CPU writes beyond its memory. It
        # writes vectors of 16 numbers, which whole ones fill.
        whole = channels % 16 == 0 and filters % 16 == 0
        self.skips = layer.kernel_size == (1, 1) and max(layer.strides) > 1 and not whole
        # Where windows of one channel have one position in a row, and a stride along it, torch's oneDNN reads beyond
        # what it is given. They need no stride there.
        span = layer.dilation[1] * (layer.kernel_size[1] - 1) + 1
        self.alone = (span, span + layer.strides[1]) if channels == groups and layer.strides[1] > 1 else None

    def forward(self, x: torch.Tensor, *, rectify: bool = False, first: bool = False) -> torch.Tensor:
        """Convolve ``[batch, height, width, channel]``; for ``rectify`` and ``first`` see `way.Step`."""
        x = x if first else channels_first(x)
        pads = self.layer.pads((x.shape[2], x.shape[3], x.shape[1]))
        inside, stride = symmetric(pads), self.stride
        if inside is None or self.skips:
            x, inside = padded(x, pads), (0, 0)
        if self.skips:
            # In the order in which it lies: the gradient comes in the order of what was cut, and arithmetic on two
            # orders is ten times slower.
            x = channels_first(channels_last(x)[:, :: stride[0], :: stride[1]])
            stride = (1, 1)
        if self.alone is not None and not self.skips and x.shape[-1] + 2 * inside[1] < self.alone[1]:
            x = functional.pad(x, (inside[1], inside[1]))[..., : self.alone[0]]
            inside, stride = (inside[0], 0), (stride[0], 1)
        y = functional.conv2d(x, self.weight, self.bias, stride, inside, self.dilation, self.groups)
        y = y.relu_() if rectify else y
        return y if first else channels_last(y)

    def extra_repr(self) -> str:
        """Show the spec's padding, which the module's own field cannot always hold."""
        shown: str = super().extra_repr()  # type: ignore[no-untyped-call]  # torch states no types here
        return f"{shown}, padding={self.layer.padding!r}"


class ChannelsLastConv3d(torch.nn.Conv3d):
    """``nn.Conv3d`` over ``[batch, depth, height, width, channel]``."""

    def __init__(self, layer: Conv3d, channels: int, filters: int, groups: int, bias: bool) -> None:
        super().__init__(
            channels, filters, layer.kernel_size, layer.strides, 0, layer.dilation, groups=groups, bias=bias
        )
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve ``[batch, depth, height, width, channel]``."""
        first, pads = channels_first(x), pads_of(self.layer, x)
        inside = symmetric(pads)
        # Where a window lies in the padding alone torch 2.13's oneDNN reads beyond its input, of volumes.
        spans = [spread * (size - 1) + 1 for spread, size in zip(self.dilation, self.kernel_size, strict=True)]
        if inside is None or any(pad >= span for pad, span in zip(inside, spans, strict=True)):
            first, inside = padded(first, pads), (0, 0, 0)
        return channels_last(
            functional.conv3d(first, self.weight, self.bias, self.stride, inside, self.dilation, self.groups)
        )

    def extra_repr(self) -> str:
        """Show the spec's padding, which the module's own field cannot always hold."""
        shown: str = super().extra_repr()  # type: ignore[no-untyped-call]  # torch states no types here
        return f"{shown}, padding={self.layer.padding!r}"


def _conv(
    layer: _Window1d | _Window2d | Conv3d, channels: int, filters: int, groups: int, bias: bool
) -> ChannelsLastConv1d | ChannelsLastConv2d | ChannelsLastConv3d:
    if isinstance(layer, _Window1d):
        return ChannelsLastConv1d(layer, channels, filters, groups, bias)
    if isinstance(layer, Conv3d):
        return ChannelsLastConv3d(layer, channels, filters, groups, bias)
    return ChannelsLastConv2d(layer, channels, filters, groups, bias)


@implements(Conv1d, Conv2d, Conv3d)
def convolution(layer: Conv1d | Conv2d | Conv3d, node: Node, settings: Settings) -> Made:
    """torch's convolution, with ``same`` padding made explicit."""
    channels = node.input_shapes[0][-1]
    module = _conv(layer, channels, layer.filters, layer.groups, layer.use_bias)
    return Made(module, weight_and_bias(KERNEL[layer.axes], layer.use_bias))


def _depthwise(
    layer: DepthwiseConv1d | DepthwiseConv2d | SeparableConv1d | SeparableConv2d, channels: int, bias: bool
) -> torch.nn.Module:
    """A convolution with a group for each channel."""
    return _conv(layer, channels, channels * layer.multiplier, channels, bias)


@implements(DepthwiseConv1d, DepthwiseConv2d)
def depthwise_convolution(layer: DepthwiseConv1d | DepthwiseConv2d, node: Node, settings: Settings) -> Made:
    """A convolution with a group for each channel."""
    module = _depthwise(layer, node.input_shapes[0][-1], layer.use_bias)
    return Made(module, weight_and_bias(_DEPTHWISE[layer.axes], layer.use_bias))


class SeparableConv(torch.nn.Sequential):
    """A ``depthwise`` convolution, then a ``pointwise`` ``nn.Linear`` over the channels."""


@implements(SeparableConv1d, SeparableConv2d)
def separable_convolution(layer: SeparableConv1d | SeparableConv2d, node: Node, settings: Settings) -> Made:
    """Both parts as submodules."""
    channels = node.input_shapes[0][-1]
    module = SeparableConv()
    module.add_module("depthwise", _depthwise(layer, channels, bias=False))
    module.add_module("pointwise", torch.nn.Linear(channels * layer.multiplier, layer.filters, bias=layer.use_bias))
    slots = {
        "depthwise_kernel": Slot("depthwise.weight", _DEPTHWISE[layer.axes]),
        "pointwise_kernel": Slot("pointwise.weight", LINEAR),
    }
    if layer.use_bias:
        slots["bias"] = Slot("pointwise.bias")
    return Made(module, slots)


def _cut(x: torch.Tensor, excess: Sequence[int]) -> torch.Tensor:
    """Drop elements at the end of each spatial axis of ``[batch, channel, *spatial]``."""
    for axis, amount in enumerate(excess, start=2):
        if amount:
            x = x.narrow(axis, 0, x.shape[axis] - amount)
    return x


class ChannelsLastConvTranspose1d(torch.nn.ConvTranspose1d):
    """``nn.ConvTranspose1d`` over ``[batch, length, channel]``, without the last ``excess`` elements.

    A negative excess is what is missing: see `_spread`.
    """

    excess: tuple[int, ...] = (0,)

    def forward(self, x: torch.Tensor, output_size: list[int] | None = None) -> torch.Tensor:
        """Spread ``[batch, length, channel]``."""
        return _spread(self, functional.conv_transpose1d, channels_first(x))


class ChannelsLastConvTranspose2d(torch.nn.ConvTranspose2d):
    """``nn.ConvTranspose2d`` over ``[batch, height, width, channel]``, without the last ``excess`` elements.

    A negative excess is what is missing: see `_spread`.
    """

    excess: tuple[int, ...] = (0, 0)

    def forward(self, x: torch.Tensor, output_size: list[int] | None = None) -> torch.Tensor:
        """Spread ``[batch, height, width, channel]``."""
        return _spread(self, functional.conv_transpose2d, channels_first(x))


def _spread(
    module: ChannelsLastConvTranspose1d | ChannelsLastConvTranspose2d,
    convolve: Callable[..., torch.Tensor],
    x: torch.Tensor,
) -> torch.Tensor:
    """Convolve ``[batch, channel, *spatial]``, and cut or add the last elements, channel last.

    Windows shorter than the stride leave a gap at the end, which has the bias alone. It is added here: with
    ``output_padding`` and windows of one element the backward pass of torch 2.13 on the CPU writes beyond its memory.
    """
    missing = [max(-excess, 0) for excess in module.excess]
    bias = None if any(missing) else module.bias
    # A row of one position needs no stride: with one the gradient by it reads beyond what it is given, as in
    # `ChannelsLastConv2d`.
    stride = (*module.stride[:-1], 1) if x.shape[-1] == 1 else module.stride
    y = _cut(convolve(x, module.weight, bias, stride, module.padding), [max(n, 0) for n in module.excess])
    if any(missing):
        y = functional.pad(y, [amount for after in reversed(missing) for amount in (0, after)])
        if module.bias is not None:
            y = y + module.bias.reshape(-1, *(1,) * len(missing))
    return channels_last(y)


@implements(ConvTranspose1d, ConvTranspose2d)
def transposed_convolution(layer: ConvTranspose1d | ConvTranspose2d, node: Node, settings: Settings) -> Made:
    """torch's transposed convolution, of which the pinned part is kept.

    ``same`` keeps n * stride of (n - 1) * stride + kernel elements: torch's ``padding`` cuts both ends alike, an odd
    one remains at the end; where the window is shorter than the stride the rest is added.
    """
    channels, axes = node.input_shapes[0][-1], len(layer.kernel_size)
    windows = list(zip(layer.kernel_size, layer.strides, strict=True))
    starts = [transposed_crop(kernel, stride, layer.padding) for kernel, stride in windows]
    same = layer.padding == "same"
    module: ChannelsLastConvTranspose1d | ChannelsLastConvTranspose2d
    if isinstance(layer, ConvTranspose1d):
        module = ChannelsLastConvTranspose1d(
            channels, layer.filters, layer.kernel_size, layer.strides, starts[0], bias=layer.use_bias
        )
    else:
        cut = (starts[0], starts[1])
        module = ChannelsLastConvTranspose2d(
            channels, layer.filters, layer.kernel_size, layer.strides, cut, bias=layer.use_bias
        )
    module.excess = tuple(
        kernel - stride - 2 * start if same else 0 for (kernel, stride), start in zip(windows, starts, strict=True)
    )
    return Made(module, weight_and_bias(_TRANSPOSED[axes], layer.use_bias))
