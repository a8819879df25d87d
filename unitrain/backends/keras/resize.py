"""Layers that give an image another size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from unitrain.backends.keras.registry import Context, KerasTensor, computes_wide, implements, saved
from unitrain.spec.layers import PixelShuffle, PixelUnshuffle, Resize
from unitrain.spec.layers.resize import linear_sources, nearest_sources


@implements(Resize)
def resize(layer: Resize, context: Context, x: KerasTensor) -> KerasTensor:
    """Keras' own layer computes in float32, whatever it is given, and where a pixel lies too."""
    return context.apply(
        Resizing2D, x, wide=True, size=context.node.output_shape[:2], interpolation=layer.interpolation
    )


@saved
class Resizing2D(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Nearest or bilinear interpolation to any size: half-pixel centres, edges clamped, any precision."""

    def __init__(self, size: Sequence[int], interpolation: str, **options: Any) -> None:
        super().__init__(**options)
        self.size = [int(extent) for extent in size]
        self.interpolation = interpolation

    def call(self, x: Any) -> Any:
        """Resize ``[batch, height, width, channel]``: first the height, then the width."""
        for axis, outputs in enumerate(self.size, start=1):
            if self.interpolation == "nearest":
                x = tf.gather(x, nearest_sources(x.shape[axis], outputs), axis=axis)
                continue
            below, above, shares = linear_sources(x.shape[axis], outputs)
            share = tf.reshape(tf.constant(shares, x.dtype), [-1, *[1] * (3 - axis)])
            x = tf.gather(x, below, axis=axis) * (1 - share) + tf.gather(x, above, axis=axis) * share
        return x

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the resized shape."""
        return (input_shape[0], *self.size, input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {**super().get_config(), "size": self.size, "interpolation": self.interpolation}


computes_wide(Resizing2D)


@implements(PixelShuffle)
def pixel_shuffle(layer: PixelShuffle, context: Context, x: KerasTensor) -> KerasTensor:
    """By Keras' own layers; TensorFlow's ``depth_to_space`` has another order of channels."""
    height, width, channels = context.node.input_shapes[0]
    factor = layer.factor
    parts = (height, width, channels // factor**2, factor, factor)
    x = context.apply(keras.layers.Reshape, x, part="squares", target_shape=parts)
    x = context.apply(keras.layers.Permute, x, part="pixels", dims=(1, 4, 2, 5, 3))
    return context.apply(keras.layers.Reshape, x, target_shape=context.node.output_shape)


@implements(PixelUnshuffle)
def pixel_unshuffle(layer: PixelUnshuffle, context: Context, x: KerasTensor) -> KerasTensor:
    """By Keras' own layers."""
    height, width, channels = context.node.input_shapes[0]
    factor = layer.factor
    parts = (height // factor, factor, width // factor, factor, channels)
    x = context.apply(keras.layers.Reshape, x, part="pixels", target_shape=parts)
    x = context.apply(keras.layers.Permute, x, part="squares", dims=(1, 3, 5, 2, 4))
    return context.apply(keras.layers.Reshape, x, target_shape=context.node.output_shape)
