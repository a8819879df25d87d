"""Convolutions. Keras' own layers, with its padding where it is one, else with zeros put around before.

TensorFlow refuses a stride together with a dilation, and unequal strides of a depthwise convolution. Those
are computed at every position and subsampled: the same numbers, at the price of the positions thrown away.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import keras
import tensorflow as tf

from unitrain.backends.keras.registry import Context, KerasLayer, KerasTensor, computes_wide, implements, saved
from unitrain.backends.keras.shape import Subsample, zero_padding
from unitrain.spec.layers import (
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

# Stated, since TensorFlow's gradient for volumes does not know its own default.
AXES = ("NWC", "NHWC", "NDHWC")


def _convolve(
    layer: Any,
    context: Context,
    x: KerasTensor,
    kind: Callable[..., KerasLayer],
    weights: Mapping[str, str],
    refused: bool,
    **options: Any,
) -> KerasTensor:
    """Apply a convolution; ``refused`` when TensorFlow does not take its strides."""
    padding = layer.padding
    if kind in SPARSE and prod(layer.kernel_size) == 1 and not refused and prod(layer.strides) > 1:
        kind = SPARSE[kind]
    named = padding in ("valid", "same") or (padding == "causal" and kind is keras.layers.Conv1D)
    if layer.axes == 3 and _steps_over(layer):
        # TensorFlow 2.21's oneDNN begins such windows of "same" too late: what is left out stands at both ends there.
        named = padding == "valid"
    if refused or not named:
        amounts = layer.pads(context.node.input_shapes[0])
        if any(map(any, amounts)):
            window = [(size - 1) * spread + 1 for size, spread in zip(layer.kernel_size, layer.dilation, strict=True)]
            x = zero_padding(context, x, amounts, part="padding", window=window)
        padding = "valid"
    y = context.apply(
        kind,
        x,
        weights=weights,
        kernel_size=layer.kernel_size,
        strides=(1,) * layer.axes if refused else layer.strides,
        padding=padding,
        data_format="channels_last",
        dilation_rate=layer.dilation,
        **{"use_bias": layer.use_bias, **options},
    )
    return context.apply(Subsample, y, part="strides", strides=layer.strides) if refused else y


def _strided_and_dilated(layer: Any) -> bool:
    return any(stride > 1 for stride in layer.strides) and any(spread > 1 for spread in layer.dilation)


def _unequal(layer: Any) -> bool:
    return len(set(layer.strides)) > 1


def _steps_over(layer: Any) -> bool:
    return any(stride > size for stride, size in zip(layer.strides, layer.kernel_size, strict=True))


def _alone(channels: int, positions: int, stride: int) -> bool:
    """Tell whether windows of one channel have one position in a row and strides along it.

    With these TensorFlow 2.21's oneDNN reads beyond what it is given, and the results are whatever lies there.
    """
    return channels == 1 and positions == 1 and stride > 1


@implements(Conv1d, Conv2d, Conv3d)
def conv(layer: Conv1d | Conv2d | Conv3d, context: Context, x: KerasTensor) -> KerasTensor:
    """Same kernel layout as the canonical one, groups included."""
    plain, channels = layer.groups == 1, context.node.input_shapes[0][-1]
    kinds = (
        (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
        if plain
        else (GroupedConv1D, GroupedConv2D, GroupedConv3D)
    )
    alone = _alone(channels // layer.groups, context.node.output_shape[-2], layer.strides[-1])
    return _convolve(
        layer,
        context,
        x,
        kinds[layer.axes - 1],
        {"kernel": "kernel", "bias": "bias"},
        alone or _strided_and_dilated(layer),
        filters=layer.filters,
        groups=layer.groups,
    )


def _read(layer: Any, x: Any) -> tuple[Any, Sequence[int]]:
    """Return what a convolution reads, and the strides that are left to it.

    Kernels of one position skip what their strides skip before they are multiplied. With strides of its own the
    gradient of such a kernel, of less than 16 channels, writes past its memory in TensorFlow 2.21's oneDNN where the
    last positions are skipped: the process dies, or goes on with other numbers somewhere.
    """
    if prod(layer.kernel_size) > 1:
        return x, layer.strides
    return x[(slice(None), *(slice(None, None, stride) for stride in layer.strides))], (1,) * layer.rank


class _Sparse(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Multiplies the positions that the strides of a kernel of one position leave, see `_read`."""

    def call(self, x: Any) -> Any:
        """Convolve ``[batch, *spatial, channel]``."""
        x, strides = _read(self, x)
        y = tf.nn.convolution(x, tf.convert_to_tensor(self.kernel), strides, "VALID", AXES[self.rank - 1])
        return self.activation(y + self.bias if self.use_bias else y)


@saved
class SparseConv1D(_Sparse, keras.layers.Conv1D):  # type: ignore[misc]  # Keras has no types
    """Convolution of sequences with a kernel of one position, and strides."""


@saved
class SparseConv2D(_Sparse, keras.layers.Conv2D):  # type: ignore[misc]  # Keras has no types
    """Convolution of images with a kernel of one position, and strides."""


@saved
class SparseConv3D(_Sparse, keras.layers.Conv3D):  # type: ignore[misc]  # Keras has no types
    """Convolution of volumes with a kernel of one position, and strides."""


class _SparseTranspose(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Puts the products of a kernel of one position where its strides have them, and zeros between; see `_read`."""

    def call(self, x: Any) -> Any:
        """Convolve ``[batch, *spatial, channel]``, transposed."""
        kernel = tf.linalg.matrix_transpose(tf.convert_to_tensor(self.kernel))
        y = tf.nn.convolution(x, kernel, 1, "VALID")
        sizes, (filters,) = y.shape[1:-1], y.shape[-1:]
        spread = [(size, stride) for size, stride in zip(sizes, self.strides, strict=True)]
        y = tf.reshape(y, [-1, *(extent for size, _ in spread for extent in (size, 1)), filters])
        y = tf.pad(y, [[0, 0], *(pair for _, stride in spread for pair in ([0, 0], [0, stride - 1])), [0, 0]])
        y = tf.reshape(y, [-1, *(size * stride for size, stride in spread), filters])
        if self.padding == "valid":
            # Nothing lies behind the last product.
            y = y[(slice(None), *(slice((size - 1) * stride + 1) for size, stride in spread))]
        return self.activation(y + self.bias if self.use_bias else y)


@saved
class SparseConv1DTranspose(_SparseTranspose, keras.layers.Conv1DTranspose):  # type: ignore[misc]  # Keras has no types
    """Transposed convolution of sequences with a kernel of one position, and strides."""


@saved
class SparseConv2DTranspose(_SparseTranspose, keras.layers.Conv2DTranspose):  # type: ignore[misc]  # Keras has no types
    """Transposed convolution of images with a kernel of one position, and strides."""


SPARSE = {
    keras.layers.Conv1D: SparseConv1D,
    keras.layers.Conv2D: SparseConv2D,
    keras.layers.Conv3D: SparseConv3D,
    keras.layers.Conv1DTranspose: SparseConv1DTranspose,
    keras.layers.Conv2DTranspose: SparseConv2DTranspose,
}
"""Kinds of layers to their siblings for kernels of one position with strides."""


class _Grouped(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Computes each group by itself: Keras has XLA compile grouped convolutions, which is 20 times slower."""

    def call(self, x: Any) -> Any:
        """Convolve ``[batch, *spatial, channel]`` with ``(*window, channel / groups, filters)``."""
        x, strides = _read(self, x)
        kernels = tf.split(tf.convert_to_tensor(self.kernel), self.groups, -1)
        options = (strides, self.padding.upper(), AXES[self.rank - 1], self.dilation_rate)
        y = tf.concat(
            [
                tf.nn.convolution(part, kernel, *options)
                for part, kernel in zip(tf.split(x, self.groups, -1), kernels, strict=True)
            ],
            -1,
        )
        return self.activation(y + self.bias if self.use_bias else y)


@saved
class GroupedConv1D(_Grouped, keras.layers.Conv1D):  # type: ignore[misc]  # Keras has no types
    """Convolution of sequences in groups of channels."""


@saved
class GroupedConv2D(_Grouped, keras.layers.Conv2D):  # type: ignore[misc]  # Keras has no types
    """Convolution of images in groups of channels."""


@saved
class GroupedConv3D(_Grouped, keras.layers.Conv3D):  # type: ignore[misc]  # Keras has no types
    """Convolution of volumes in groups of channels."""


# TensorFlow adds up the gradient of a depthwise kernel one by one: over 25,000 positions nothing of it was right.
computes_wide(
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv1D,
    keras.layers.SeparableConv2D,
)


def _of_one_number(layer: Any, x: KerasTensor) -> bool:
    """Tell whether a depthwise kernel is one number, which as a plain convolution computes the same.

    oneDNN keeps what it has prepared by the sizes of a kernel, and takes the two kinds of convolution for one where
    all sizes are 1: whichever comes second in a process, TensorFlow 2.21 ends in "could not create a primitive
    descriptor for the reorder primitive".
    """
    return bool(prod(layer.kernel_size) * layer.multiplier * x.shape[-1] == 1)


def _pointwise(layer: Any) -> Callable[..., KerasLayer]:
    kind: Callable[..., KerasLayer] = keras.layers.Conv1D if layer.axes == 1 else keras.layers.Conv2D
    return kind


@implements(DepthwiseConv1d, DepthwiseConv2d)
def depthwise_conv(layer: DepthwiseConv1d | DepthwiseConv2d, context: Context, x: KerasTensor) -> KerasTensor:
    """Output channel ``c * multiplier + m``, as pinned."""
    if _of_one_number(layer, x):
        kind = _pointwise(layer)
        weights = {"kernel": "kernel", "bias": "bias"}
        return _convolve(layer, context, x, kind, weights, _strided_and_dilated(layer), filters=1)
    return _convolve(
        layer,
        context,
        x,
        keras.layers.DepthwiseConv1D if layer.axes == 1 else keras.layers.DepthwiseConv2D,
        {"kernel": "kernel", "bias": "bias"},
        _strided_and_dilated(layer) or _unequal(layer),
        wide=True,
        depth_multiplier=layer.multiplier,
    )


@implements(SeparableConv1d, SeparableConv2d)
def separable_conv(layer: SeparableConv1d | SeparableConv2d, context: Context, x: KerasTensor) -> KerasTensor:
    """Keras' pointwise kernel has window axes of 1."""
    if _of_one_number(layer, x):
        kind = _pointwise(layer)
        weights = {"depthwise_kernel": "kernel"}
        refused = _strided_and_dilated(layer)
        x = _convolve(layer, context, x, kind, weights, refused, part="depthwise", filters=1, use_bias=False)
        weights = {"pointwise_kernel": "kernel", "bias": "bias"}
        return context.apply(kind, x, weights=weights, filters=layer.filters, kernel_size=1, use_bias=layer.use_bias)
    return _convolve(
        layer,
        context,
        x,
        keras.layers.SeparableConv1D if layer.axes == 1 else keras.layers.SeparableConv2D,
        {"depthwise_kernel": "depthwise_kernel", "pointwise_kernel": "pointwise_kernel", "bias": "bias"},
        _strided_and_dilated(layer) or _unequal(layer),
        wide=True,
        filters=layer.filters,
        depth_multiplier=layer.multiplier,
    )


@implements(ConvTranspose1d, ConvTranspose2d)
def conv_transpose(layer: ConvTranspose1d | ConvTranspose2d, context: Context, x: KerasTensor) -> KerasTensor:
    """Keras' kernel is ``(..., out, in)``.

    For ``valid`` its default output is longer where the stride passes the kernel; an output padding of 0
    gives (n - 1) * stride + kernel.
    """
    axes = len(layer.kernel_size)
    kind: Any = keras.layers.Conv1DTranspose if axes == 1 else keras.layers.Conv2DTranspose
    if prod(layer.kernel_size) == 1 and prod(layer.strides) > 1:
        kind = SPARSE[kind]
    # The gradient by its input is a plain convolution, of as many channels as there are filters.
    alone = axes == 2 and _alone(layer.filters, context.node.input_shapes[0][-2], layer.strides[-1])
    if alone:
        x = zero_padding(context, x, ((0, 0), (0, 1)), part="padding")
    y = context.apply(
        kind,
        x,
        weights={"kernel": "kernel", "bias": "bias"},
        swapped="kernel",
        filters=layer.filters,
        kernel_size=layer.kernel_size,
        strides=layer.strides,
        padding=layer.padding,
        output_padding=(0,) * axes if layer.padding == "valid" else None,
        data_format="channels_last",
        use_bias=layer.use_bias,
    )
    beyond = ((0, 0), (0, layer.strides[-1]))
    return context.apply(keras.layers.Cropping2D, y, part="cropping", cropping=beyond) if alone else y
