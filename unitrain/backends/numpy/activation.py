"""Elementwise activations, and softmax: y = f(x), dx = dy f'(x), with the spec's subgradients at kinks."""

from __future__ import annotations

from collections.abc import Callable
from math import pi, sqrt

import numpy as np

from unitrain.backends.numpy.memory import in_order_of
from unitrain.backends.numpy.reduction import sum_to_channel
from unitrain.backends.numpy.registry import (
    Array,
    Context,
    Gradients,
    Parameters,
    Result,
    implements,
)
from unitrain.spec.layers.activation import (
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

# Klambauer et al. 2017, Self-normalizing neural networks, section 2.
SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946


def _elementwise(y: Array, derivative: Callable[[], Array]) -> Result:
    """Return ``y`` and dx = dy f'(x); the derivative is computed only when it is asked for."""

    def backward(dy: Array) -> Gradients:
        return (in_order_of(y, dy) * derivative(),), {}

    return y, backward


def _by_sign(x: Array, positive: Array | float, other: Array | float) -> Array:
    """Choose by x > 0 between two finite values, by arithmetic: on random signs `numpy.where` is slow."""
    mask = (x > 0).astype(x.dtype)
    result: Array = mask * positive + (1 - mask) * other
    return result


def _sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), written with e = exp(-|x|), which cannot overflow: 1 or e, over 1 + e."""
    e = np.exp(-np.abs(x))
    result: Array = np.maximum(e, x >= 0) / (1 + e)
    return result


@implements(Relu)
def relu(layer: Relu, context: Context, parameters: Parameters, x: Array) -> Result:
    """``f = max(x, 0)``, f' = [x > 0]."""
    y = np.maximum(x, 0)
    return _elementwise(y, lambda: y > 0)


@implements(Relu6)
def relu6(layer: Relu6, context: Context, parameters: Parameters, x: Array) -> Result:
    """``f = min(max(x, 0), 6)``, f' = [0 < x < 6]."""
    return _elementwise(np.clip(x, 0, 6), lambda: (x > 0) & (x < 6))


@implements(LeakyRelu)
def leaky_relu(layer: LeakyRelu, context: Context, parameters: Parameters, x: Array) -> Result:
    """``f = max(x, 0) + slope min(x, 0)``, f' = 1 where x > 0, else slope."""
    return _elementwise(np.maximum(x, 0) + layer.slope * np.minimum(x, 0), lambda: _by_sign(x, 1.0, layer.slope))


@implements(Prelu)
def prelu(layer: Prelu, context: Context, parameters: Parameters, x: Array) -> Result:
    """``f = max(x, 0) + a min(x, 0)``, a one slope a channel: f' = 1 or a, da = sum(dy min(x, 0))."""
    slope = parameters["slope"]
    below = np.minimum(x, 0)

    def backward(dy: Array) -> Gradients:
        return (dy * _by_sign(x, 1.0, slope),), {"slope": sum_to_channel(dy * below)}

    return np.maximum(x, 0) + slope * below, backward


@implements(Elu)
def elu(layer: Elu, context: Context, parameters: Parameters, x: Array) -> Result:
    """``f = x`` where x > 0, else alpha (exp(x) - 1); f' = 1 or alpha exp(x)."""
    return _scaled_elu(x, 1.0, layer.alpha)


@implements(Selu)
def selu(layer: Selu, context: Context, parameters: Parameters, x: Array) -> Result:
    """``f = scale elu(x, alpha)``, with the paper's two constants."""
    return _scaled_elu(x, SELU_SCALE, SELU_ALPHA)


def _scaled_elu(x: Array, scale: float, alpha: float) -> Result:
    below = np.minimum(x, 0)  # its exponential cannot overflow
    return _elementwise(
        scale * np.maximum(x, 0) + scale * alpha * np.expm1(below),
        lambda: _by_sign(x, scale, scale * alpha * np.exp(below)),
    )


@implements(Gelu)
def gelu(layer: Gelu, context: Context, parameters: Parameters, x: Array) -> Result:
    """``f = x Phi(x)``, f' = Phi(x) + x phi(x), Phi and phi the normal distribution and its density.

    ``tanh`` takes Phi(x) = (1 + tanh(u)) / 2, u = sqrt(2 / pi) (x + 0.044715 x^3), and so
    f' = Phi(x) + x (1 - tanh(u)^2) u' / 2.
    """
    if layer.approximate == "tanh":
        t = np.tanh(sqrt(2 / pi) * (x + 0.044715 * x * x * x))
        phi_t = 0.5 * (1 + t)
        return _elementwise(
            x * phi_t,
            lambda: phi_t + 0.5 * x * (1 - t * t) * (sqrt(2 / pi) * (1 + 3 * 0.044715 * x * x)),
        )
    from scipy.special import erf

    distribution = 0.5 * (1 + erf(x * sqrt(0.5)))
    return _elementwise(x * distribution, lambda: distribution + x * (np.exp(-0.5 * x * x) * (1 / sqrt(2 * pi))))


@implements(Silu)
def silu(layer: Silu, context: Context, parameters: Parameters, x: Array) -> Result:
    """``f = x s(x)``, s the sigmoid: f' = s (1 + x (1 - s))."""
    s = _sigmoid(x)
    context.kept(s)
    return _elementwise(x * s, lambda: s * (1 + x * (1 - s)))


@implements(Sigmoid)
def sigmoid(layer: Sigmoid, context: Context, parameters: Parameters, x: Array) -> Result:
    """``f = 1 / (1 + exp(-x))``, f' = f (1 - f)."""
    y = _sigmoid(x)
    context.kept(y)
    return _elementwise(y, lambda: y * (1 - y))


@implements(HardSigmoid)
def hard_sigmoid(layer: HardSigmoid, context: Context, parameters: Parameters, x: Array) -> Result:
    """``f = relu6(x + 3) / 6``, f' = [-3 < x < 3] / 6."""
    y = np.clip(x + 3, 0, 6) * (1 / 6)
    return _elementwise(y, lambda: ((x > -3) & (x < 3)).astype(x.dtype) * (1 / 6))


@implements(HardSwish)
def hard_swish(layer: HardSwish, context: Context, parameters: Parameters, x: Array) -> Result:
    """``f = x relu6(x + 3) / 6``; f' = 0 up to -3, (2 x + 3) / 6 between, 1 from 3 on."""

    def derivative() -> Array:
        inside = (x > -3) & (x < 3)
        return inside * ((2 * np.clip(x, -3, 3) + 3) * (1 / 6)) + (x >= 3)

    return _elementwise(x * (np.clip(x + 3, 0, 6) * (1 / 6)), derivative)


@implements(Tanh)
def tanh(layer: Tanh, context: Context, parameters: Parameters, x: Array) -> Result:
    """``f = tanh(x)``, f' = 1 - f^2."""
    y = np.tanh(x)
    context.kept(y)
    return _elementwise(y, lambda: 1 - y * y)


@implements(Softplus)
def softplus(layer: Softplus, context: Context, parameters: Parameters, x: Array) -> Result:
    """``f = log(1 + exp(x)) = max(x, 0) + log(1 + exp(-|x|))``, f' the sigmoid."""
    return _elementwise(np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))), lambda: _sigmoid(x))


@implements(Softmax)
def softmax(layer: Softmax, context: Context, parameters: Parameters, x: Array) -> Result:
    """``y = exp(x) / sum(exp(x))``, the largest x taken off first: dx = y (dy - sum(y dy)) over the axis."""
    axis = layer.axis % (x.ndim - 1) + 1
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    y = e / e.sum(axis=axis, keepdims=True)

    def backward(dy: Array) -> Gradients:
        shared = (y * dy).sum(axis=axis, keepdims=True)
        context.kept(shared)
        return (y * (dy - shared),), {}

    return y, backward
