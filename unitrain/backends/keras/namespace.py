"""TensorFlow's few functions for losses, metrics and optimizers, as `namespace.ArrayNamespace`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from unitrain.backends.namespace import Tensor


class TensorFlowNamespace:
    """Array functions with NumPy's arguments on TensorFlow tensors."""

    abs = staticmethod(tf.abs)
    exp = staticmethod(tf.exp)
    log = staticmethod(tf.math.log)
    log1p = staticmethod(tf.math.log1p)
    sqrt = staticmethod(tf.sqrt)
    square = staticmethod(tf.square)
    sign = staticmethod(tf.sign)
    tanh = staticmethod(tf.tanh)
    minimum = staticmethod(tf.minimum)
    maximum = staticmethod(tf.maximum)
    zeros_like = staticmethod(tf.zeros_like)
    ones_like = staticmethod(tf.ones_like)
    isfinite = staticmethod(tf.math.is_finite)

    def asarray(self, value: Tensor, like: Tensor) -> Tensor:
        """Turn a number, NumPy array or tensor into a tensor of the dtype of ``like``."""
        if tf.is_tensor(value):
            return tf.cast(value, like.dtype)
        return tf.constant(np.asarray(value, dtype=like.dtype.as_numpy_dtype))

    def cast(self, x: Tensor, like: Tensor) -> Tensor:
        """Convert a tensor to the dtype of ``like``."""
        return tf.cast(x, like.dtype)

    def clip(self, x: Tensor, low: float, high: float) -> Tensor:
        """Limit to ``low .. high``."""
        return tf.minimum(tf.maximum(x, low), high)

    def where(self, condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Choose element by element; a number takes the dtype of the other choice."""
        if not tf.is_tensor(x) and tf.is_tensor(y):
            x = tf.constant(x, y.dtype)
        elif not tf.is_tensor(y) and tf.is_tensor(x):
            y = tf.constant(y, x.dtype)
        return tf.where(condition, x, y)

    def sum(self, x: Tensor, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
        """Add up."""
        return tf.reduce_sum(x, axis, keepdims)

    def size(self, x: Tensor) -> Tensor:
        """Return the number of elements."""
        return tf.cast(tf.size(x), x.dtype)

    def log_softmax(self, x: Tensor) -> Tensor:
        """Return the logarithm of softmax over the last axis."""
        return tf.nn.log_softmax(x)

    def softmax(self, x: Tensor) -> Tensor:
        """Return softmax over the last axis.

        It is computed part by part where oneDNN refuses it, for more than five axes, and of a few classes, for which
        oneDNN takes longer to begin than to compute: 40 us and 13 of 128 samples with 10 classes, on two threads.
        """
        few = x.shape.rank == 2 and x.shape[-1] <= 128
        if x.shape.rank <= 5 and not few:
            return tf.nn.softmax(x)
        powers = tf.exp(x - tf.reduce_max(x, -1, keepdims=True))
        return powers / tf.reduce_sum(powers, -1, keepdims=True)

    def max(self, x: Tensor, axis: int | None = None, keepdims: bool = False) -> Tensor:
        """Return the largest element."""
        return tf.reduce_max(x, axis, keepdims)

    def argmax(self, x: Tensor, axis: int) -> Tensor:
        """Index of the largest value, the first of equals: int32."""
        # To TensorFlow 0 is larger than -0.
        return tf.argmax(tf.where(x == 0, tf.zeros_like(x), x), axis, tf.int32)

    def reshape(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        """Give the elements another shape."""
        return tf.reshape(x, shape)

    def one_hot(self, index: Tensor, classes: int, like: Tensor) -> Tensor:
        """``[..., classes]`` of zeros and a one; an index outside gives zeros."""
        return tf.one_hot(index, classes, dtype=like.dtype)

    def take_last(self, x: Tensor, index: Tensor) -> Tensor:
        """``x[..., index]`` element by element: ``[..., classes]`` and ``[...]`` give ``[...]``."""
        return tf.gather(x, index, axis=-1, batch_dims=index.shape.rank)

    def take(self, x: Tensor, index: Tensor) -> Tensor:
        """``x[index]`` along the first axis."""
        return tf.gather(x, index)


NAMESPACE = TensorFlowNamespace()
