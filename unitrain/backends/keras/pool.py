"""Pooling over windows and over whole images or sequences."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from unitrain.backends.keras.registry import Context, KerasTensor, computes_wide, implements, saved
from unitrain.spec.layers import (
    AveragePool1d,
    AveragePool2d,
    AveragePool3d,
    GlobalAveragePool,
    GlobalMaxPool,
    MaxPool1d,
    MaxPool2d,
    MaxPool3d,
)

_KERAS = {
    MaxPool1d: keras.layers.MaxPooling1D,
    MaxPool2d: keras.layers.MaxPooling2D,
    AveragePool1d: keras.layers.AveragePooling1D,
    AveragePool2d: keras.layers.AveragePooling2D,
    AveragePool3d: keras.layers.AveragePooling3D,
}


@implements(MaxPool1d, MaxPool2d, MaxPool3d, AveragePool1d, AveragePool2d, AveragePool3d)
def pool(layer: Any, context: Context, x: KerasTensor) -> KerasTensor:
    """Keras' own layers, which have no dilation and no stated padding; else `WindowPooling`.

    TensorFlow pools volumes in float32 and bfloat16 alone, and gives the gradient of a maximum to all equals.
    """
    average = isinstance(layer, (AveragePool1d, AveragePool2d, AveragePool3d))
    volumes = average and context.settings.precision in ("float32", "bfloat16", "mixed_bfloat16")
    if isinstance(layer.padding, str) and max(layer.dilation) == 1 and (layer.axes < 3 or volumes):
        return context.apply(
            _KERAS[type(layer)],
            x,
            pool_size=layer.kernel_size,
            strides=layer.strides,
            padding=layer.padding,
            wide=average,
            data_format="channels_last",
        )
    return context.apply(
        WindowPooling,
        x,
        wide=average,
        average=average,
        pool_size=layer.kernel_size,
        strides=layer.strides,
        dilation=layer.dilation,
        padding=layer.pads(context.node.input_shapes[0]),
    )


@implements(GlobalAveragePool)
def global_average_pool(layer: GlobalAveragePool, context: Context, x: KerasTensor) -> KerasTensor:
    """Keras' own layers for sequences and images; other ranks are first seen as a sequence."""
    *spatial, channels = context.node.input_shapes[0]
    if len(spatial) > 2:
        x = context.apply(keras.layers.Reshape, x, part="positions", target_shape=(prod(spatial), channels))
        y = context.apply(keras.layers.GlobalAveragePooling1D, x, part="mean", data_format="channels_last")
        return context.apply(keras.layers.Reshape, y, target_shape=context.node.output_shape)
    kind = keras.layers.GlobalAveragePooling1D if len(spatial) == 1 else keras.layers.GlobalAveragePooling2D
    return context.apply(kind, x, data_format="channels_last", keepdims=layer.keep_axes)


@implements(GlobalMaxPool)
def global_max_pool(layer: GlobalMaxPool, context: Context, x: KerasTensor) -> KerasTensor:
    """One window over all positions. Keras' global layer would share the gradient among equals."""
    *spatial, channels = context.node.input_shapes[0]
    positions = prod(spatial)
    if len(spatial) > 1:
        x = context.apply(keras.layers.Reshape, x, part="positions", target_shape=(positions, channels))
    y = context.apply(keras.layers.MaxPooling1D, x, part="max", pool_size=positions, data_format="channels_last")
    return context.apply(keras.layers.Reshape, y, target_shape=context.node.output_shape)


@saved
class WindowPooling(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Pooling with stated padding and dilation: padding never wins a maximum and is not counted in a mean.

    Parameters
    ----------
    average
        Mean of each window, else its largest element.
    pool_size, strides, dilation
        One number for each spatial axis.
    padding
        (before, after) for each spatial axis.
    """

    def __init__(
        self,
        average: bool,
        pool_size: Sequence[int],
        strides: Sequence[int],
        dilation: Sequence[int],
        padding: Sequence[Sequence[int]],
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.average = average
        self.pool_size = list(pool_size)
        self.strides = list(strides)
        self.dilation = list(dilation)
        self.padding = [list(pads) for pads in padding]

    def call(self, x: Any) -> Any:
        """Pool ``[batch, *spatial, channel]``."""
        sizes = x.shape[1:-1]
        fill = 0.0 if self.average else -np.inf
        x = tf.pad(x, [[0, 0], *self.padding, [0, 0]], constant_values=fill)
        if len(sizes) == 3:
            # Of a volume every slice first, seen as images, then along the depth: the same windows, in the same order.
            depth, *rest = x.shape[1:]
            slices = self._pool(tf.reshape(x, [-1, *rest]), slice(1, None))
            high, wide, channels = slices.shape[1:]
            y = self._pool(tf.reshape(slices, [-1, depth, high * wide, channels]), slice(0, 1))
            y = tf.reshape(y, [-1, y.shape[1], high, wide, channels])
        else:
            y = self._pool(x, slice(None))
        return y * tf.constant(self._share(sizes), y.dtype) if self.average else y

    def _pool(self, x: Any, axes: slice) -> Any:
        """Pool some axes, the first ones of ``[batch, *spatial, channel]``, which have their padding."""
        rest = (1,) * (x.shape.rank - 2 - len(self.pool_size[axes]))
        size, strides, dilation = ((*option[axes], *rest) for option in (self.pool_size, self.strides, self.dilation))
        # TensorFlow pools with a stride or a dilation, and never leaves gaps between windows: else every
        # position is computed, and those wanted are taken.
        every = any(stride > window for stride, window in zip(strides, size, strict=True)) or max(dilation) > 1
        y = tf.nn.pool(
            x,
            size,
            "AVG" if self.average else "MAX",
            strides=None if every else strides,
            padding="VALID",
            dilations=dilation,
        )
        return y[(slice(None), *(slice(None, None, stride) for stride in strides))] if every else y

    def _share(self, sizes: Sequence[int]) -> Any:
        """Return elements in the window / elements that are not padding: ``[*positions, 1]``."""
        share = np.ones(())
        for size, window, stride, spread, (before, after) in zip(
            sizes, self.pool_size, self.strides, self.dilation, self.padding, strict=True
        ):
            starts = np.arange(-before, size + after - (window - 1) * spread, stride)
            places = starts[:, None] + spread * np.arange(window)
            counted = ((places >= 0) & (places < size)).sum(axis=1)
            share = np.multiply.outer(share, window / counted)
        return share[..., None]

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {
            **super().get_config(),
            "average": self.average,
            "pool_size": self.pool_size,
            "strides": self.strides,
            "dilation": self.dilation,
            "padding": self.padding,
        }


computes_wide(
    keras.layers.AveragePooling1D, keras.layers.AveragePooling2D, keras.layers.AveragePooling3D, WindowPooling
)
