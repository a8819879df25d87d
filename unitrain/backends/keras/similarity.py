"""How alike two vectors are, by operations of Keras. In 16 bits in float32."""

from __future__ import annotations

import keras

from unitrain.backends.keras.registry import Context, KerasTensor, implements, widened
from unitrain.spec.layers import Cosine, Dot


@implements(Dot)
def dot(layer: Dot, context: Context, a: KerasTensor, b: KerasTensor) -> KerasTensor:
    """The sum of the products."""
    return keras.ops.cast(_inner(widened(a), widened(b), layer.keep_axis), a.dtype)


@implements(Cosine)
def cosine(layer: Cosine, context: Context, a: KerasTensor, b: KerasTensor) -> KerasTensor:
    """The same of unit vectors."""
    u, v = (_unit(widened(x), layer.epsilon) for x in (a, b))
    return keras.ops.cast(_inner(u, v, layer.keep_axis), a.dtype)


def _inner(a: KerasTensor, b: KerasTensor, keep: bool) -> KerasTensor:
    return keras.ops.sum(keras.ops.multiply(a, b), axis=-1, keepdims=keep)


def _unit(x: KerasTensor, epsilon: float) -> KerasTensor:
    square = keras.ops.maximum(_inner(x, x, True), epsilon**2)
    return keras.ops.divide(x, keras.ops.sqrt(square))
