"""Layers that join several inputs."""

from __future__ import annotations

import keras

from unitrain.backends.keras.registry import Context, KerasTensor, implements
from unitrain.spec.layers import Add, Concatenate, Multiply


@implements(Add)
def add(layer: Add, context: Context, *inputs: KerasTensor) -> KerasTensor:
    """Keras' own layer."""
    return context.apply(keras.layers.Add, list(inputs))


@implements(Multiply)
def multiply(layer: Multiply, context: Context, *inputs: KerasTensor) -> KerasTensor:
    """Keras' own layer."""
    return context.apply(keras.layers.Multiply, list(inputs))


@implements(Concatenate)
def concatenate(layer: Concatenate, context: Context, *inputs: KerasTensor) -> KerasTensor:
    """Keras' own layer; its axis counts the batch."""
    axis = layer.axis % len(context.node.output_shape) + 1
    return context.apply(keras.layers.Concatenate, list(inputs), axis=axis)
