"""Normalisation. Keras' own layers with the pinned epsilons; their running statistics are the biased ones."""

from __future__ import annotations

from typing import Any

import keras

from unitrain.backends.keras.registry import Context, KerasTensor, computes_wide, implements, saved
from unitrain.spec.layers import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, RmsNorm

_AFFINE = {"scale": "gamma", "bias": "beta"}


@implements(BatchNorm)
def batch_norm(layer: BatchNorm, context: Context, x: KerasTensor) -> KerasTensor:
    """Over batch and positions; ``momentum`` is the fraction kept, as pinned."""
    return context.apply(
        keras.layers.BatchNormalization,
        x,
        weights={**_AFFINE, "running_mean": "moving_mean", "running_variance": "moving_variance"},
        axis=-1,
        momentum=layer.momentum,
        epsilon=layer.epsilon,
        scale=layer.use_scale,
        center=layer.use_bias,
    )


@implements(LayerNorm)
def layer_norm(layer: LayerNorm, context: Context, x: KerasTensor) -> KerasTensor:
    """Over the last axes of each sample."""
    return context.apply(
        keras.layers.LayerNormalization,
        x,
        weights=_AFFINE,
        axis=list(range(-layer.axes, 0)),
        epsilon=layer.epsilon,
        scale=layer.use_scale,
        center=layer.use_bias,
    )


@implements(GroupNorm, InstanceNorm)
def group_norm(layer: GroupNorm | InstanceNorm, context: Context, x: KerasTensor) -> KerasTensor:
    """Over all positions and each run of channels."""
    return context.apply(
        keras.layers.GroupNormalization,
        x,
        weights=_AFFINE,
        groups=layer.groups_of(context.node.input_shapes[0][-1]),
        axis=-1,
        epsilon=layer.epsilon,
        scale=layer.use_scale,
        center=layer.use_bias,
    )


@implements(RmsNorm)
def rms_norm(layer: RmsNorm, context: Context, x: KerasTensor) -> KerasTensor:
    """Keras' own layer where there is a scale, which it always has."""
    if layer.use_scale:
        return context.apply(
            keras.layers.RMSNormalization, x, weights={"scale": "scale"}, wide=True, axis=-1, epsilon=layer.epsilon
        )
    return context.apply(UnscaledRMSNormalization, x, wide=True, epsilon=layer.epsilon)


@saved
class UnscaledRMSNormalization(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """``x / sqrt(mean(x^2) + epsilon)`` over the channels."""

    def __init__(self, epsilon: float, **options: Any) -> None:
        super().__init__(**options)
        self.epsilon = epsilon

    def call(self, x: Any) -> Any:
        """Normalise ``[..., channel]``."""
        return x * keras.ops.rsqrt(keras.ops.mean(keras.ops.square(x), axis=-1, keepdims=True) + self.epsilon)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {**super().get_config(), "epsilon": self.epsilon}


# Keras' other norms compute in float32, with float32 scales and biases where the policy is a mixed one.
computes_wide(keras.layers.RMSNormalization, UnscaledRMSNormalization)
