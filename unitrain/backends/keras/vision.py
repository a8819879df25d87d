"""Parts of vision models."""

from __future__ import annotations

from math import prod
from typing import Any

import keras

from unitrain.backends.keras.activation import hard_sigmoid
from unitrain.backends.keras.registry import Context, KerasTensor, computes_wide, implements, saved
from unitrain.spec.layers import ClassToken, LayerScale, PatchEmbedding, SqueezeExcite


@implements(LayerScale)
def layer_scale(layer: LayerScale, context: Context, x: KerasTensor) -> KerasTensor:
    """Keras has none."""
    return context.apply(ChannelScale, x, weights={"scale": "scale"}, wide=True)


@implements(ClassToken)
def class_token(layer: ClassToken, context: Context, x: KerasTensor) -> KerasTensor:
    """A dense layer of a single one, which gives each sample the token."""
    one = keras.ops.ones_like(x[:, :1, :1])
    width = context.node.input_shapes[0][-1]
    token = context.apply(
        keras.layers.Dense, one, part="token", weights={"token": "kernel"}, units=width, use_bias=False
    )
    return context.apply(keras.layers.Concatenate, [token, x], axis=1)


@implements(PatchEmbedding)
def patch_embedding(layer: PatchEmbedding, context: Context, x: KerasTensor) -> KerasTensor:
    """Keras' convolution, its positions flattened."""
    patches = context.apply(
        keras.layers.Conv2D,
        x,
        part="patches",
        weights={"kernel": "kernel", "bias": "bias"},
        filters=layer.width,
        kernel_size=layer.patch,
        strides=layer.patch,
        padding="valid",
        data_format="channels_last",
        use_bias=layer.use_bias,
    )
    return context.apply(keras.layers.Reshape, patches, target_shape=context.node.output_shape)


@implements(SqueezeExcite)
def squeeze_excite(layer: SqueezeExcite, context: Context, x: KerasTensor) -> KerasTensor:
    """Keras' own layers, one after the other."""
    *spatial, channels = context.node.input_shapes[0]
    rows = context.apply(keras.layers.Reshape, x, part="positions", target_shape=(prod(spatial), channels))
    mean = context.apply(keras.layers.GlobalAveragePooling1D, rows, part="mean", wide=True)
    gate = hard_sigmoid if layer.gate == "hard_sigmoid" else layer.gate
    hidden = _dense(context, mean, "reduce", layer.reduced)
    hidden = context.apply(keras.layers.Activation, hidden, part="inner", activation=layer.inner)
    gates = _dense(context, hidden, "expand", channels)
    gates = context.apply(keras.layers.Activation, gates, part="gate", activation=gate)
    shape = (*(1,) * len(spatial), channels)
    gates = context.apply(keras.layers.Reshape, gates, part="gates", target_shape=shape)
    return context.apply(keras.layers.Multiply, [x, gates], wide=True)


def _dense(context: Context, x: KerasTensor, part: str, units: int) -> KerasTensor:
    weights = {f"{part}_kernel": "kernel", f"{part}_bias": "bias"}
    return context.apply(keras.layers.Dense, x, part=part, weights=weights, units=units, use_bias=True)


@saved
class ChannelScale(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Multiplies each channel by a learned factor."""

    def build(self, input_shape: Any) -> None:
        """Make the variable."""
        self.scale = self.add_weight(shape=(input_shape[-1],), initializer="ones", name="scale")

    def call(self, x: Any) -> Any:
        """Scale ``[batch, ..., channel]``."""
        return x * self.scale


# TensorFlow would add up means, and gradients of factors, in 16 bits.
computes_wide(ChannelScale, keras.layers.GlobalAveragePooling1D, keras.layers.Multiply)
