"""Convolutions: ONNX's own operators in float32; a product over gathered windows in float64."""

from __future__ import annotations

from math import prod

from unitrain.backends.onnx.emitter import Array, LayerEmitter, Value
from unitrain.backends.onnx.registry import implements
from unitrain.backends.onnx.window import combined, gathered, sliding, spread
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
    WindowedLayer,
)
from unitrain.spec.layers.window import PadAmounts, transposed_crop


def onnx_pads(pads: PadAmounts) -> list[int]:
    """Return amounts in ONNX's order: before on every axis, then after on every axis."""
    return [before for before, _ in pads] + [after for _, after in pads]


@implements(Conv1d, Conv2d, Conv3d)
def convolution(layer: Conv1d | Conv2d | Conv3d, b: LayerEmitter, x: Value) -> Value:
    """Plain or grouped."""
    return _windowed(layer, b, x, "kernel", b.weight("kernel"), layer.groups)


@implements(DepthwiseConv1d, DepthwiseConv2d)
def depthwise_convolution(layer: DepthwiseConv1d | DepthwiseConv2d, b: LayerEmitter, x: Value) -> Value:
    """A convolution with a group for each channel."""
    return _windowed(layer, b, x, "kernel", _grouped(b.weight("kernel")), x.shape[-1])


@implements(SeparableConv1d, SeparableConv2d)
def separable_convolution(layer: SeparableConv1d | SeparableConv2d, b: LayerEmitter, x: Value) -> Value:
    """A convolution with a group for each channel, then one with windows of a single element."""
    middle = _windowed(layer, b, x, "depthwise_kernel", _grouped(b.weight("depthwise_kernel")), x.shape[-1], bias=False)
    pointwise = b.weight("pointwise_kernel")
    if b.double:
        return _biased(b, b.op("MatMul", b.last(middle), b.parameter("pointwise_kernel", pointwise)))
    kernel = pointwise.reshape(*(1,) * layer.axes, *pointwise.shape)
    inputs = [b.first(middle), b.parameter("pointwise_kernel", _first(kernel)), *b.optional("bias")]
    return b.value(b.op("Conv", *inputs, kernel_shape=[1] * layer.axes), "channels_first")


@implements(ConvTranspose1d, ConvTranspose2d)
def transposed_convolution(layer: ConvTranspose1d | ConvTranspose2d, b: LayerEmitter, x: Value) -> Value:
    """Of the full result (n - 1) * stride + kernel the pinned part is kept.

    Where the window is shorter than the stride, ``output_padding`` adds what is missing.
    """
    kernel, sizes, outputs = b.weight("kernel"), x.shape[:-1], b.node.output_shape[:-1]
    axes = list(zip(sizes, outputs, layer.kernel_size, layer.strides, strict=True))
    starts = [transposed_crop(window, stride, layer.padding) for _, _, window, stride in axes]
    if b.double:
        index = combined(sizes, [spread(*axis, start) for axis, start in zip(axes, starts, strict=True)])
        return _product(b, gathered(b, x, index), index, "kernel", kernel, 1)
    rest = [
        kept + start - (size - 1) * stride - window
        for (size, kept, window, stride), start in zip(axes, starts, strict=True)
    ]
    spatial = len(axes)
    weight = b.parameter("kernel", kernel.transpose(spatial, spatial + 1, *range(spatial)))
    y = b.op(
        "ConvTranspose",
        b.first(x),
        weight,
        *b.optional("bias"),
        kernel_shape=list(layer.kernel_size),
        strides=list(layer.strides),
        pads=[*starts, *(max(-amount, 0) for amount in rest)],
        output_padding=[max(amount, 0) for amount in rest],
    )
    return b.value(y, "channels_first")


def _grouped(kernel: Array) -> Array:
    """See a depthwise kernel ``[*window, channel, multiplier]`` as a grouped one, ``[*window, 1, out]``."""
    return kernel.reshape(*kernel.shape[:-2], 1, -1)


def _first(kernel: Array) -> Array:
    """Bring ``[*window, in, out]`` into ONNX's ``[out, in, *window]``."""
    spatial = kernel.ndim - 2
    return kernel.transpose(spatial + 1, spatial, *range(spatial))


def _windowed(
    layer: WindowedLayer, b: LayerEmitter, x: Value, local: str, kernel: Array, groups: int, *, bias: bool = True
) -> Value:
    """Convolve with the parameter ``local``, which as a grouped kernel is ``[*window, in / groups, out]``."""
    pads, filters = layer.pads(x.shape), kernel.shape[-1]
    if b.double:
        windows = zip(
            x.shape,
            layer.positions(x.shape),
            layer.kernel_size,
            layer.strides,
            layer.dilation,
            (before for before, _ in pads),
            strict=False,
        )
        index = combined(x.shape[:-1], [sliding(*axis) for axis in windows])
        return _product(b, gathered(b, x, index), index, local, kernel, groups, bias=bias)
    y = b.op(
        "Conv",
        b.first(x),
        b.parameter(local, _first(kernel)),
        *(b.optional("bias") if bias else ()),
        kernel_shape=list(layer.kernel_size),
        strides=list(layer.strides),
        dilations=list(layer.dilation),
        pads=onnx_pads(pads),
        group=groups,
    )
    return Value((*layer.positions(x.shape), filters), {"channels_first": y})


def _product(
    b: LayerEmitter, windows: str, index: Array, local: str, kernel: Array, groups: int, *, bias: bool = True
) -> Value:
    """Multiply gathered windows ``[batch, outputs, taps, channel]`` by a kernel, each group by its own part."""
    outputs, taps = index.shape
    depth, filters = kernel.shape[-2:]
    grouped = b.op("Transpose", b.reshaped(windows, [outputs, taps, groups, depth]), perm=[0, 1, 3, 2, 4])
    rows = b.reshaped(grouped, [outputs, groups, 1, taps * depth])
    matrix = kernel.reshape(taps * depth, groups, filters // groups).transpose(1, 0, 2)
    product = b.op("MatMul", rows, b.parameter(local, matrix))
    spatial = b.node.output_shape[:-1]
    assert prod(spatial) == outputs
    y = b.reshaped(product, [*spatial, filters])
    return _biased(b, y) if bias else Value((*spatial, filters), {"channels_last": y})


def _biased(b: LayerEmitter, tensor: str) -> Value:
    """Add the bias, if there is one, to ``[batch, ..., channel]``."""
    for bias in b.optional("bias"):
        tensor = b.op("Add", tensor, bias)
    return b.value(tensor)
