"""What a loss scale asks of gradients: to be divided by it, and to be found finite."""

from __future__ import annotations

import tensorflow as tf

from unitrain.backends.keras.call import Tensors
from unitrain.backends.namespace import Tensor


def unscaled(gradients: Tensors, scale: Tensor) -> Tensors:
    """Divide gradients by the loss scale, a power of two: exact, but for what lies below float32."""
    return {name: gradient / scale for name, gradient in gradients.items()}


def all_finite(gradients: Tensors) -> Tensor:
    """Return whether no number of the gradients is NaN or infinite: a scalar."""
    return tf.reduce_all([tf.reduce_all(tf.math.is_finite(gradient)) for gradient in gradients.values()])
