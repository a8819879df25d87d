"""Layers that leave something out in training: with the project's masks, or with Keras' own generator."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from unitrain.backends.keras.registry import Context, KerasTensor, implements, saved
from unitrain.spec.layers import Dropout, StochasticDepth
from unitrain.weights.random import keep_threshold, mask_key, threefry


@implements(Dropout, StochasticDepth)
def dropout(layer: Dropout | StochasticDepth, context: Context, x: KerasTensor) -> KerasTensor:
    """Drop in training only."""
    return apply_dropout(context, x, layer.rate, whole=isinstance(layer, StochasticDepth))


def apply_dropout(context: Context, x: KerasTensor, rate: float, *, whole: bool = False, part: str = "") -> KerasTensor:
    """Drop elements, or whole samples, of a node's ``part``; the generator is keyed by seed and node."""
    key = mask_key(context.settings.seed, "dropout", context.node.name)
    if context.settings.deterministic:
        return context.apply(CounterDropout, x, part=part, rate=rate, key=key, whole=whole)
    shape = (None, *(1,) * (len(x.shape) - 1)) if whole else None
    return context.apply(keras.layers.Dropout, x, part=part, rate=rate, noise_shape=shape, seed=key[0] >> 1)


class _TensorFlowWords:
    """32-bit words as TensorFlow uint32, whose arithmetic wraps."""

    def add(self, x: Any, y: Any) -> Any:
        return tf.add(x, tf.convert_to_tensor(y, tf.uint32))

    def xor(self, x: Any, y: Any) -> Any:
        return tf.bitwise.bitwise_xor(x, y)

    def rotate_left(self, x: Any, bits: int) -> Any:
        left = tf.bitwise.left_shift(x, tf.constant(bits, tf.uint32))
        return tf.bitwise.bitwise_or(left, tf.bitwise.right_shift(x, tf.constant(32 - bits, tf.uint32)))


_WORDS = _TensorFlowWords()


def keep_mask(key: tuple[int, int], step: Any, size: Any, rate: float) -> Any:
    """Compute `unitrain.weights.random.keep_mask` on the device: bool ``[size]``.

    ``step`` and ``size`` are integer tensors.
    """
    half = (size + 1) // 2
    element = tf.cast(tf.range(half), tf.uint32)
    # A scalar step broadcasts at the first mixing round: every element has the same.
    first, second = threefry(_WORDS, key, (element, tf.cast(step, tf.uint32)))
    return tf.concat([first, second], 0)[:size] >= tf.constant(keep_threshold(rate), tf.uint32)


@saved
class CounterDropout(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Dropout whose mask is a function of a key and of ``step``, a variable that counts the training calls.

    As with Keras' seed generators the state is a variable of the layer: a saved model goes on where it was. With
    ``whole`` a sample is dropped or kept as one.
    """

    def __init__(self, rate: float, key: tuple[int, int], whole: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.rate = rate
        self.whole = whole
        self.key = (int(key[0]), int(key[1]))

    def build(self, input_shape: Any) -> None:
        """Make the counter."""
        self.step = self.add_weight(shape=(), dtype="int64", initializer="zeros", trainable=False, name="step")

    def call(self, x: Any, training: bool = False) -> Any:
        """Drop elements of a tensor of any shape, in training."""
        if not training:
            return x
        step = tf.convert_to_tensor(self.step)
        shape = tf.concat([tf.shape(x)[:1], [1] * (x.shape.rank - 1)], 0) if self.whole else tf.shape(x)
        kept = tf.reshape(keep_mask(self.key, step, tf.reduce_prod(shape), self.rate), shape)
        self.step.assign(step + 1)
        return x * (tf.cast(kept, x.dtype) * (1.0 / (1.0 - self.rate)))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the input shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {**super().get_config(), "rate": self.rate, "key": list(self.key), "whole": self.whole}
