"""Convolutions: plain, depthwise, separable, transposed; over sequences (1d), images (2d) and volumes (3d).

Kernels have the canonical layout ``(height, width, in / groups, out)``; those of sequences have the length alone before
``in / groups``, those of volumes the depth before the height.
As everywhere in deep learning the kernel is not flipped: this is cross-correlation.
"""

from __future__ import annotations

from math import prod
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, NonNegativeInt, PositiveInt

from unitrain.spec.initializers import Glorot, Initializer, Zeros
from unitrain.spec.layers.activation import ActivationName
from unitrain.spec.layers.base import (
    LayerSpec,
    Pair,
    Parameter,
    Shape,
    ShapeError,
    Triple,
    as_many,
    bias_parameter,
    kernel_parameter,
    require_rank,
    show_shape,
)
from unitrain.spec.layers.window import (
    PadAmounts,
    PaddingName,
    SequencePaddingName,
    transposed_outputs,
    window_outputs,
    window_padding,
)
from unitrain.spec.quantizers import KernelQuantizer


def _amounts(value: Any, axes: int) -> Any:
    """Read ``2`` as two on every side, ``[1, 2]`` (two axes) as symmetric amounts an axis."""
    if isinstance(value, int) and not isinstance(value, bool):
        return ((value, value),) * axes
    if isinstance(value, (list, tuple)):
        if axes == 1 and len(value) == 2 and all(isinstance(part, int) for part in value):
            return (tuple(value),)
        return tuple((part, part) if isinstance(part, int) else part for part in value)
    return value


Single = Annotated[tuple[PositiveInt], as_many(1)]
SidePads = tuple[NonNegativeInt, NonNegativeInt]
Padding1d = Annotated[
    PaddingName | tuple[SidePads],
    BeforeValidator(
        lambda value: _amounts(value, 1),
        json_schema_input_type=PaddingName | NonNegativeInt | SidePads | tuple[NonNegativeInt | SidePads],
    ),
]
SequencePadding = Annotated[
    SequencePaddingName | tuple[SidePads],
    BeforeValidator(
        lambda value: _amounts(value, 1),
        json_schema_input_type=SequencePaddingName | NonNegativeInt | SidePads | tuple[NonNegativeInt | SidePads],
    ),
]
Padding2d = Annotated[
    PaddingName | tuple[SidePads, SidePads],
    BeforeValidator(
        lambda value: _amounts(value, 2),
        json_schema_input_type=PaddingName
        | NonNegativeInt
        | tuple[NonNegativeInt | SidePads, NonNegativeInt | SidePads],
    ),
]

Padding3d = Annotated[
    PaddingName | tuple[SidePads, SidePads, SidePads],
    BeforeValidator(
        lambda value: _amounts(value, 3),
        json_schema_input_type=PaddingName
        | NonNegativeInt
        | tuple[NonNegativeInt | SidePads, NonNegativeInt | SidePads, NonNegativeInt | SidePads],
    ),
]

_AXES = {1: "(length, channel)", 2: "(height, width, channel)", 3: "(depth, height, width, channel)"}


class WindowedLayer(LayerSpec):
    """A layer that slides a window over the spatial axes: subclasses type the fields for so many axes."""

    kernel_size: tuple[int, ...]
    strides: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: SequencePaddingName | PadAmounts

    @property
    def axes(self) -> int:
        """Number of spatial axes."""
        return len(self.kernel_size)

    def pads(self, shape: Shape) -> PadAmounts:
        """Return (before, after) for each spatial axis of an input ``(*spatial, channel)``."""
        return window_padding(self.padding, shape[:-1], self.kernel_size, self.strides, self.dilation)

    def positions(self, shape: Shape) -> Shape:
        """Return the spatial output sizes for an input ``(*spatial, channel)``."""
        require_rank(shape, self.axes + 1, _AXES[self.axes])
        return window_outputs(shape[:-1], self.kernel_size, self.strides, self.dilation, self.pads(shape))


class _Convolution(WindowedLayer):
    """A window with weights."""

    use_bias: bool = True
    activation: ActivationName | None = None
    bias_initializer: Initializer = Zeros()

    def _with_bias(self, table: dict[str, Parameter], size: int) -> dict[str, Parameter]:
        if self.use_bias:
            table["bias"] = bias_parameter(size, self.bias_initializer)
        return table


class _Conv(_Convolution):
    filters: PositiveInt
    groups: PositiveInt = 1
    kernel_initializer: Initializer = Glorot()
    kernel_quantizer: KernelQuantizer | None = None

    def output_shape(self, *inputs: Shape) -> Shape:
        """``(*positions, filters)``."""
        positions = self.positions(inputs[0])
        channels = inputs[0][-1]
        if channels % self.groups or self.filters % self.groups:
            raise ShapeError(
                f"groups {self.groups} must divide the {channels} input channels of {show_shape(inputs[0])}"
                f" and the {self.filters} filters"
            )
        return (*positions, self.filters)

    def parameters(self, *inputs: Shape) -> dict[str, Parameter]:
        """``kernel`` ``(*kernel_size, in / groups, filters)`` and ``bias`` ``(filters,)``."""
        depth = inputs[0][-1] // self.groups
        area = prod(self.kernel_size)
        kernel = kernel_parameter(
            (*self.kernel_size, depth, self.filters),
            self.kernel_initializer,
            (area * depth, area * self.filters // self.groups),
            self.kernel_quantizer,
        )
        return self._with_bias({"kernel": kernel}, self.filters)

    def macs(self, *inputs: Shape) -> int:
        """Window area times channels a group, for each output element."""
        return prod(self.output_shape(*inputs)) * prod(self.kernel_size) * (inputs[0][-1] // self.groups)


class Conv1d(_Conv):
    """Convolution over ``[batch, length, channel]``.

    With ``causal`` padding step t reads steps t and before, (kernel - 1) * dilation of them (van den Oord et al. 2016,
    WaveNet, section 2.1).
    """

    type: Literal["conv1d"] = "conv1d"
    kernel_size: Single
    strides: Single = (1,)
    dilation: Single = (1,)
    padding: SequencePadding = "valid"


class Conv2d(_Conv):
    """Convolution over ``[batch, height, width, channel]``."""

    type: Literal["conv2d"] = "conv2d"
    kernel_size: Pair
    strides: Pair = (1, 1)
    dilation: Pair = (1, 1)
    padding: Padding2d = "valid"


class Conv3d(_Conv):
    """Convolution over ``[batch, depth, height, width, channel]``."""

    type: Literal["conv3d"] = "conv3d"
    kernel_size: Triple
    strides: Triple = (1, 1, 1)
    dilation: Triple = (1, 1, 1)
    padding: Padding3d = "valid"


class _DepthwiseConv(_Convolution):
    multiplier: PositiveInt = 1
    kernel_initializer: Initializer = Glorot()
    kernel_quantizer: KernelQuantizer | None = None

    def output_shape(self, *inputs: Shape) -> Shape:
        """``(*positions, channels * multiplier)``; output channel ``c * multiplier + m`` reads channel ``c``."""
        return (*self.positions(inputs[0]), inputs[0][-1] * self.multiplier)

    def parameters(self, *inputs: Shape) -> dict[str, Parameter]:
        """``kernel`` ``(*kernel_size, channels, multiplier)`` and ``bias``.

        Each output reads one window of one channel, so fan in is the window's area, and fan out the area
        times the multiplier.
        """
        channels = inputs[0][-1]
        area = prod(self.kernel_size)
        kernel = kernel_parameter(
            (*self.kernel_size, channels, self.multiplier),
            self.kernel_initializer,
            (area, area * self.multiplier),
            self.kernel_quantizer,
            channel_axes=2,
        )
        return self._with_bias({"kernel": kernel}, channels * self.multiplier)

    def macs(self, *inputs: Shape) -> int:
        """Window area for each output element."""
        return prod(self.output_shape(*inputs)) * prod(self.kernel_size)


class DepthwiseConv1d(_DepthwiseConv):
    """One window a channel over ``[batch, length, channel]``."""

    type: Literal["depthwise_conv1d"] = "depthwise_conv1d"
    kernel_size: Single
    strides: Single = (1,)
    dilation: Single = (1,)
    padding: SequencePadding = "valid"


class DepthwiseConv2d(_DepthwiseConv):
    """One window a channel over ``[batch, height, width, channel]``."""

    type: Literal["depthwise_conv2d"] = "depthwise_conv2d"
    kernel_size: Pair
    strides: Pair = (1, 1)
    dilation: Pair = (1, 1)
    padding: Padding2d = "valid"


class _SeparableConv(_Convolution):
    filters: PositiveInt
    multiplier: PositiveInt = 1
    depthwise_initializer: Initializer = Glorot()
    pointwise_initializer: Initializer = Glorot()

    def output_shape(self, *inputs: Shape) -> Shape:
        """``(*positions, filters)``."""
        return (*self.positions(inputs[0]), self.filters)

    def parameters(self, *inputs: Shape) -> dict[str, Parameter]:
        """``depthwise_kernel`` ``(*kernel_size, channels, multiplier)``, ``pointwise_kernel``
        ``(channels * multiplier, filters)`` and ``bias``.
        """
        channels = inputs[0][-1]
        area, middle = prod(self.kernel_size), channels * self.multiplier
        table = {
            "depthwise_kernel": kernel_parameter(
                (*self.kernel_size, channels, self.multiplier),
                self.depthwise_initializer,
                (area, area * self.multiplier),
            ),
            "pointwise_kernel": kernel_parameter(
                (middle, self.filters), self.pointwise_initializer, (middle, self.filters)
            ),
        }
        return self._with_bias(table, self.filters)

    def macs(self, *inputs: Shape) -> int:
        """The depthwise windows and the pointwise product."""
        middle = inputs[0][-1] * self.multiplier
        return prod(self.positions(inputs[0])) * middle * (prod(self.kernel_size) + self.filters)


class SeparableConv1d(_SeparableConv):
    """A depthwise convolution and a pointwise one over ``[batch, length, channel]``, nothing between them."""

    type: Literal["separable_conv1d"] = "separable_conv1d"
    kernel_size: Single
    strides: Single = (1,)
    dilation: Single = (1,)
    padding: SequencePadding = "valid"


class SeparableConv2d(_SeparableConv):
    """A depthwise convolution and a pointwise one over ``[batch, height, width, channel]``, nothing between."""

    type: Literal["separable_conv2d"] = "separable_conv2d"
    kernel_size: Pair
    strides: Pair = (1, 1)
    dilation: Pair = (1, 1)
    padding: Padding2d = "valid"


class _ConvTranspose(LayerSpec):
    filters: PositiveInt
    kernel_size: tuple[int, ...]
    strides: tuple[int, ...]
    padding: PaddingName = "valid"
    use_bias: bool = True
    activation: ActivationName | None = None
    kernel_initializer: Initializer = Glorot()
    bias_initializer: Initializer = Zeros()

    def output_shape(self, *inputs: Shape) -> Shape:
        """``same``: every axis times its stride; ``valid``: (n - 1) * stride + kernel."""
        axes = len(self.kernel_size)
        require_rank(inputs[0], axes + 1, _AXES[axes])
        return (
            *transposed_outputs(inputs[0][:-1], self.kernel_size, self.strides, self.padding),
            self.filters,
        )

    def parameters(self, *inputs: Shape) -> dict[str, Parameter]:
        """``kernel`` ``(*kernel_size, in, filters)`` and ``bias`` ``(filters,)``."""
        depth, area = inputs[0][-1], prod(self.kernel_size)
        table = {
            "kernel": kernel_parameter(
                (*self.kernel_size, depth, self.filters),
                self.kernel_initializer,
                (area * depth, area * self.filters),
            )
        }
        if self.use_bias:
            table["bias"] = bias_parameter(self.filters, self.bias_initializer)
        return table

    def macs(self, *inputs: Shape) -> int:
        """Window area times filters, for each input element."""
        return prod(inputs[0]) * prod(self.kernel_size) * self.filters


class ConvTranspose1d(_ConvTranspose):
    """The gradient of a convolution by its input, as a layer, over ``[batch, length, channel]``."""

    type: Literal["conv_transpose1d"] = "conv_transpose1d"
    kernel_size: Single
    strides: Single = (1,)


class ConvTranspose2d(_ConvTranspose):
    """The gradient of a convolution by its input, as a layer, over ``[batch, height, width, channel]``."""

    type: Literal["conv_transpose2d"] = "conv_transpose2d"
    kernel_size: Pair
    strides: Pair = (1, 1)
