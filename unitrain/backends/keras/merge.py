"""Layers that join several inputs."""

from __future__ import annotations

from functools import reduce

import keras

from unitrain.backends.keras.registry import Context, KerasTensor, implements, widened
from unitrain.spec.layers import Add, Concatenate, Divide, Multiply, Subtract


@implements(Add)
def add(layer: Add, context: Context, *inputs: KerasTensor) -> KerasTensor:
    """Keras' own layer; inputs of several shapes by operations of Keras.

    In a batch of one Keras takes an input such as ``[1, 3, 1]`` for a bias of three channels, and adds it along another
    axis. x - (-y) is x + y to the last bit.
    """
    if len(set(context.node.input_shapes)) == 1:
        return context.apply(keras.layers.Add, list(inputs))
    return reduce(lambda total, x: keras.ops.subtract(total, keras.ops.negative(x)), inputs)


@implements(Multiply)
def multiply(layer: Multiply, context: Context, *inputs: KerasTensor) -> KerasTensor:
    """Keras' own layer."""
    return context.apply(keras.layers.Multiply, list(inputs))


@implements(Subtract)
def subtract(layer: Subtract, context: Context, a: KerasTensor, b: KerasTensor) -> KerasTensor:
    """Keras' own operation: its layer takes no inputs that stretch over all but the channel."""
    return keras.ops.subtract(a, b)


@implements(Divide)
def divide(layer: Divide, context: Context, a: KerasTensor, b: KerasTensor) -> KerasTensor:
    """In 16 bits in float32."""
    return keras.ops.cast(keras.ops.divide(widened(a), widened(b)), a.dtype)


@implements(Concatenate)
def concatenate(layer: Concatenate, context: Context, *inputs: KerasTensor) -> KerasTensor:
    """Keras' own layer; its axis counts the batch."""
    axis = layer.axis % len(context.node.output_shape) + 1
    return context.apply(keras.layers.Concatenate, list(inputs), axis=axis)
