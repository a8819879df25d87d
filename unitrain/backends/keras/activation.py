"""Elementwise activations, and softmax.

Keras' own layers where value and derivative are the pinned ones at every point, kinks included; else a
function or a subclass with the pinned formula. Keras' hard sigmoid lets the gradient through at its edges,
its SELU has the other one-sided derivative at 0 and its PReLU none; and TensorFlow rounds the constants of
GELU and the slope of leaky ReLU to float32 whatever the precision.
"""

from __future__ import annotations

from collections.abc import Callable
from math import pi, prod, sqrt
from typing import Any

import keras
import tensorflow as tf

from unitrain.backends.keras.registry import Builder, Context, KerasTensor, implements, saved
from unitrain.spec.layers import (
    Elu,
    Gelu,
    HardSigmoid,
    HardSwish,
    LeakyRelu,
    Prelu,
    Relu,
    Relu6,
    Selu,
    Sigmoid,
    Silu,
    Softmax,
    Softplus,
    Tanh,
)
from unitrain.spec.layers.base import LayerSpec

# Klambauer et al. 2017, Self-normalizing neural networks, section 2.
_SELU_ALPHA = 1.6732632423543772848170429916717
_SELU_SCALE = 1.0507009873554804934193349852946


@saved
def selu(x: Any) -> Any:
    """``scale * elu(x, alpha)``, whose derivative at 0 is ``scale * alpha``."""
    below = _SELU_SCALE * _SELU_ALPHA * tf.math.expm1(tf.minimum(x, 0))
    return tf.where(x > 0, _SELU_SCALE * x, below)


@saved
def gelu_exact(x: Any) -> Any:
    """``x Phi(x)``, Phi(x) = (1 + erf(x / sqrt(2))) / 2."""
    return 0.5 * x * (1 + tf.math.erf(x * sqrt(0.5)))


@saved
def gelu_tanh(x: Any) -> Any:
    """``x Phi(x)``, Phi(x) about (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2."""
    return 0.5 * x * (1 + tf.tanh(sqrt(2 / pi) * (x + 0.044715 * x * x * x)))


@saved
def hard_sigmoid(x: Any) -> Any:
    """``relu6(x + 3) / 6``, whose derivative at -3 and at 3 is 0."""
    return tf.cast(_hard_sigmoid(x), x.dtype)


@saved
def hard_swish(x: Any) -> Any:
    """``x relu6(x + 3) / 6``, whose derivative at -3 is 0, at 3 is 1."""
    share = _hard_sigmoid(x)
    return tf.cast(tf.cast(x, share.dtype) * share, x.dtype)


def _hard_sigmoid(x: Any) -> Any:
    """Compute it of 16 bits in float32: in them x + 3 is 6 for some x below 3, where the derivative is not yet 0."""
    wide = tf.cast(x, tf.float32) if x.dtype in (tf.float16, tf.bfloat16) else x
    return tf.nn.relu6(wide + 3) * (1 / 6)


_Function = str | Callable[[Any], Any]


def _fixed(function: _Function) -> Builder:
    """Return the builder of an activation without arguments: by Keras' name, or one of our functions."""

    def build(layer: LayerSpec, context: Context, x: KerasTensor) -> KerasTensor:
        return context.apply(keras.layers.Activation, x, activation=function)

    return build


_FIXED: dict[type[LayerSpec], _Function] = {
    Relu: "relu",
    Relu6: "relu6",
    Selu: selu,
    Silu: "silu",
    Sigmoid: "sigmoid",
    HardSigmoid: hard_sigmoid,
    HardSwish: hard_swish,
    Tanh: "tanh",
    Softplus: "softplus",
}
for _layer, _function in _FIXED.items():
    implements(_layer)(_fixed(_function))


@implements(Gelu)
def gelu(layer: Gelu, context: Context, x: KerasTensor) -> KerasTensor:
    """Exact, or by the tanh approximation."""
    function = gelu_tanh if layer.approximate == "tanh" else gelu_exact
    return context.apply(keras.layers.Activation, x, activation=function)


@implements(Elu)
def elu(layer: Elu, context: Context, x: KerasTensor) -> KerasTensor:
    """Keras' own layer."""
    return context.apply(keras.layers.ELU, x, alpha=layer.alpha)


@implements(Softmax)
def softmax(layer: Softmax, context: Context, x: KerasTensor) -> KerasTensor:
    """Keras' own layer, whose axis counts the batch; oneDNN refuses more than five axes, so they are joined."""
    shape = context.node.output_shape
    axis = layer.axis % len(shape)
    if len(shape) < 5:
        return context.apply(keras.layers.Softmax, x, axis=axis + 1)
    joined = (prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :]))
    x = context.apply(keras.layers.Reshape, x, part="joined", target_shape=joined)
    y = context.apply(keras.layers.Softmax, x, part="softmax", axis=2)
    return context.apply(keras.layers.Reshape, y, target_shape=shape)


@implements(LeakyRelu)
def leaky_relu(layer: LeakyRelu, context: Context, x: KerasTensor) -> KerasTensor:
    """``x`` where positive, else ``slope x``."""
    return context.apply(LeakyReLU, x, negative_slope=layer.slope)


@implements(Prelu)
def prelu(layer: Prelu, context: Context, x: KerasTensor) -> KerasTensor:
    """One learned slope a channel."""
    shared = list(range(1, len(context.node.output_shape))) or None
    return context.apply(PReLU, x, weights={"slope": "alpha"}, shared_axes=shared)


@saved
class LeakyReLU(keras.layers.LeakyReLU):  # type: ignore[misc]  # Keras has no types
    """Leaky ReLU whose slope has the precision of its input."""

    def call(self, x: Any) -> Any:
        """Apply to a tensor of any shape."""
        return tf.where(x > 0, x, self.negative_slope * x)


@saved
class PReLU(keras.layers.PReLU):  # type: ignore[misc]  # Keras has no types
    """PReLU whose derivative at 0 is the slope."""

    def call(self, x: Any) -> Any:
        """Apply to a tensor ``[batch, ..., channel]``."""
        return tf.where(x > 0, x, tf.convert_to_tensor(self.alpha) * x)
