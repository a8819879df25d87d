"""Layers that move elements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from unitrain.backends.keras.registry import Context, KerasTensor, implements, saved
from unitrain.spec.layers import Flatten, Padding, Permute, Reshape, Upsample1d, Upsample2d
from unitrain.spec.layers.window import PadAmounts


@implements(Flatten)
def flatten(layer: Flatten, context: Context, x: KerasTensor) -> KerasTensor:
    """Keras' own layer."""
    return context.apply(keras.layers.Flatten, x, data_format="channels_last")


@implements(Reshape)
def reshape(layer: Reshape, context: Context, x: KerasTensor) -> KerasTensor:
    """Keras' own layer."""
    return context.apply(keras.layers.Reshape, x, target_shape=context.node.output_shape)


@implements(Permute)
def permute(layer: Permute, context: Context, x: KerasTensor) -> KerasTensor:
    """Keras' own layer, which counts the axes from 1."""
    return context.apply(keras.layers.Permute, x, dims=tuple(axis + 1 for axis in layer.axes))


@implements(Padding)
def padding(layer: Padding, context: Context, x: KerasTensor) -> KerasTensor:
    """Keras' own layer for zeros around images and sequences."""
    rank = len(context.node.output_shape)
    amounts = layer.all_amounts(rank)
    zeros = layer.mode == "constant" and layer.value == 0.0
    if zeros and rank in (2, 3) and amounts[-1] == (0, 0):
        return zero_padding(context, x, amounts[:-1])
    return context.apply(Pad, x, amounts=amounts, mode=layer.mode, value=layer.value)


def zero_padding(
    context: Context, x: KerasTensor, amounts: PadAmounts, part: str = "", window: Sequence[int] | None = None
) -> KerasTensor:
    """Put zeros around the spatial axes of a sequence, an image or a volume.

    ``window`` is the extent of what reads them, by axis; None: not known. TensorFlow 2.21 joins a convolution of images
    with the zeros around them, and where a window lies in those at the end alone its oneDNN reads beyond the image: the
    process dies, or goes on. Zeros that `Pad` puts there are not joined.
    """
    window = window or (2,) * len(amounts)  # of windows of one position none was found
    if len(amounts) == 2 and any(end >= extent for (_, end), extent in zip(amounts, window, strict=True)):
        return context.apply(Pad, x, part=part, amounts=[*amounts, (0, 0)])
    if len(amounts) == 1:
        return context.apply(keras.layers.ZeroPadding1D, x, part=part, padding=amounts[0], data_format="channels_last")
    kind = keras.layers.ZeroPadding2D if len(amounts) == 2 else keras.layers.ZeroPadding3D
    return context.apply(kind, x, part=part, padding=amounts, data_format="channels_last")


@implements(Upsample1d)
def upsample1d(layer: Upsample1d, context: Context, x: KerasTensor) -> KerasTensor:
    """Keras' own layer."""
    return context.apply(keras.layers.UpSampling1D, x, size=layer.factor[0])


@implements(Upsample2d)
def upsample2d(layer: Upsample2d, context: Context, x: KerasTensor) -> KerasTensor:
    """Keras' own layer for ``nearest``; its bilinear one computes in float32 whatever it is given."""
    if layer.interpolation == "nearest":
        return context.apply(
            keras.layers.UpSampling2D,
            x,
            size=layer.factor,
            data_format="channels_last",
            interpolation="nearest",
        )
    return context.apply(BilinearUpSampling2D, x, factor=layer.factor)


@saved
class Pad(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Add elements at the ends of any axes but the batch.

    Parameters
    ----------
    amounts
        (before, after) for each axis but the batch.
    mode
        ``constant``, ``reflect`` or ``edge``, as in `numpy.pad`.
    value
        What ``constant`` fills with.
    """

    def __init__(
        self, amounts: Sequence[Sequence[int]], mode: str = "constant", value: float = 0.0, **options: Any
    ) -> None:
        super().__init__(**options)
        self.amounts = [[int(before), int(after)] for before, after in amounts]
        self.mode = mode
        self.value = value

    def call(self, x: Any) -> Any:
        """Pad a tensor ``[batch, ...]``."""
        if self.mode == "constant":
            # A tensor: with a 0 from Python it would be the operation that convolutions are joined with.
            return tf.pad(x, [[0, 0], *self.amounts], constant_values=tf.constant(self.value, x.dtype))
        for axis, (before, after) in enumerate(self.amounts, start=1):
            if before or after:
                # The source of every element of the padded axis.
                source = np.pad(np.arange(x.shape[axis]), (before, after), self.mode)  # type: ignore[call-overload]  # a str
                x = tf.gather(x, source, axis=axis)
        return x

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the padded shape."""
        padded = (extent + sum(pads) for extent, pads in zip(input_shape[1:], self.amounts, strict=True))
        return (input_shape[0], *padded)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {**super().get_config(), "amounts": self.amounts, "mode": self.mode, "value": self.value}


@saved
class Subsample(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Keep every ``strides``-th position: what a stride does, for windows to which TensorFlow denies one."""

    def __init__(self, strides: Sequence[int], **options: Any) -> None:
        super().__init__(**options)
        self.strides = [int(stride) for stride in strides]

    def call(self, x: Any) -> Any:
        """Subsample the spatial axes of ``[batch, *spatial, channel]``."""
        return x[(slice(None), *(slice(None, None, stride) for stride in self.strides))]

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {**super().get_config(), "strides": self.strides}


@saved
class BilinearUpSampling2D(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Bilinear interpolation by a whole factor: half-pixel centres, edges clamped, any precision."""

    def __init__(self, factor: Sequence[int], **options: Any) -> None:
        super().__init__(**options)
        self.factor = [int(extent) for extent in factor]

    def call(self, x: Any) -> Any:
        """Enlarge ``[batch, height, width, channel]``: first the height, then the width."""
        return _interpolate(_interpolate(x, 1, self.factor[0]), 2, self.factor[1])

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {**super().get_config(), "factor": self.factor}


def _interpolate(x: Any, axis: int, factor: int) -> Any:
    """Enlarge one axis: output ``factor * i + p`` lies at ``i + t``, t = (p + 1/2) / factor - 1/2."""
    size = x.shape[axis]
    first, rest = tf.split(x, [1, size - 1], axis)
    start, last = tf.split(x, [size - 1, 1], axis)
    before, after = tf.concat([first, start], axis), tf.concat([rest, last], axis)
    phases = []
    for p in range(factor):
        t = (p + 0.5) / factor - 0.5
        phases.append((1 - abs(t)) * x + abs(t) * (before if t < 0 else after))
    shape = [-1, *x.shape[1:axis], size * factor, *x.shape[axis + 1 :]]
    return tf.reshape(tf.stack(phases, axis + 1), shape)
