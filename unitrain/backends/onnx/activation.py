"""Activations: ONNX's own operators, or their formulas where the opset or onnxruntime in float64 has none."""

from __future__ import annotations

from collections.abc import Callable
from math import pi, sqrt
from typing import Any

import numpy as np

from unitrain.backends.onnx.emitter import LayerEmitter, Value
from unitrain.backends.onnx.registry import implements
from unitrain.spec.layers import activation as spec

# Klambauer et al. 2017, Self-normalizing neural networks, section 2.
_SELU_ALPHA = 1.6732632423543772848170429916717
_SELU_SCALE = 1.0507009873554804934193349852946
# From here on erf is 1 to the last bit of float64.
_ERF_END = 6.0
# Gauss-Legendre nodes by which exp(-(x t)^2) is integrated over -1 .. 1 to the last bits of float64, up to that x.
_ERF_NODES = 56


def _elementwise(b: LayerEmitter, x: Value, formula: Callable[[str], str]) -> Value:
    """Apply in whichever layout the value is in."""
    return b.value(formula(x.forms[x.layout]), x.layout)


def _one(b: LayerEmitter, x: Value, kind: str, **attributes: Any) -> Value:
    """Apply one operator."""
    return _elementwise(b, x, lambda tensor: b.op(kind, tensor, **attributes))


@implements(spec.Relu)
def relu(layer: spec.Relu, b: LayerEmitter, x: Value) -> Value:
    """``max(x, 0)``."""
    return _one(b, x, "Relu")


@implements(spec.Relu6)
def relu6(layer: spec.Relu6, b: LayerEmitter, x: Value) -> Value:
    """``min(max(x, 0), 6)``."""
    return _elementwise(b, x, lambda tensor: _clipped(b, tensor, 0.0, 6.0))


@implements(spec.LeakyRelu)
def leaky_relu(layer: spec.LeakyRelu, b: LayerEmitter, x: Value) -> Value:
    """``max(x, 0) + slope min(x, 0)``."""
    if b.double:
        return _elementwise(b, x, lambda tensor: _with_slope(b, tensor, b.number(layer.slope)))
    return _one(b, x, "LeakyRelu", alpha=layer.slope)


@implements(spec.Prelu)
def prelu(layer: spec.Prelu, b: LayerEmitter, x: Value) -> Value:
    """Leaky ReLU with a slope for each channel."""
    slope = b.weight("slope")
    if x.layout == "channels_first":
        slope = slope.reshape(-1, *(1,) * (x.rank - 2))
    name = b.parameter("slope", slope)
    if b.double:
        return _elementwise(b, x, lambda tensor: _with_slope(b, tensor, name))
    return _elementwise(b, x, lambda tensor: b.op("PRelu", tensor, name))


@implements(spec.Elu)
def elu(layer: spec.Elu, b: LayerEmitter, x: Value) -> Value:
    """``x`` where positive, else alpha (exp(x) - 1)."""
    if b.double:
        return _elementwise(b, x, lambda tensor: _scaled_elu(b, tensor, 1.0, layer.alpha))
    return _one(b, x, "Elu", alpha=layer.alpha)


@implements(spec.Selu)
def selu(layer: spec.Selu, b: LayerEmitter, x: Value) -> Value:
    """``scale elu(x, alpha)``, with the paper's two constants."""
    if b.double:
        return _elementwise(b, x, lambda tensor: _scaled_elu(b, tensor, _SELU_SCALE, _SELU_ALPHA))
    return _one(b, x, "Selu", alpha=_SELU_ALPHA, gamma=_SELU_SCALE)


@implements(spec.Gelu)
def gelu(layer: spec.Gelu, b: LayerEmitter, x: Value) -> Value:
    """``x Phi(x)``."""
    return _elementwise(b, x, lambda tensor: gelu_of(b, tensor, layer.approximate))


def gelu_of(b: LayerEmitter, tensor: str, approximate: str = "none") -> str:
    """``x Phi(x)``: an operator from opset 20 on. What it is written with before, onnxruntime fuses."""
    if b.opset >= 20 and not b.double:
        return b.op("Gelu", tensor, approximate=approximate)
    if approximate == "tanh":
        cube = b.op("Mul", b.op("Mul", tensor, tensor), tensor)
        inner = b.op("Add", tensor, b.op("Mul", cube, b.number(0.044715)))
        bend = b.op("Tanh", b.op("Mul", inner, b.number(sqrt(2 / pi))))
    else:
        bend = _erf(b, b.op("Div", tensor, b.number(sqrt(2))))
    return b.op("Mul", b.op("Mul", tensor, b.op("Add", bend, b.number(1.0))), b.number(0.5))


@implements(spec.Silu)
def silu(layer: spec.Silu, b: LayerEmitter, x: Value) -> Value:
    """``x sigmoid(x)``; ``Swish`` of opset 24 is not yet one that onnxruntime has in later opsets."""
    return _elementwise(b, x, lambda tensor: b.op("Mul", tensor, b.op("Sigmoid", tensor)))


@implements(spec.Sigmoid)
def sigmoid(layer: spec.Sigmoid, b: LayerEmitter, x: Value) -> Value:
    """``1 / (1 + exp(-x))``."""
    return _one(b, x, "Sigmoid")


@implements(spec.HardSigmoid)
def hard_sigmoid(layer: spec.HardSigmoid, b: LayerEmitter, x: Value) -> Value:
    """``relu6(x + 3) / 6``: the slope, by default 0.2, is set to 1 / 6."""
    if b.double:
        return _elementwise(b, x, lambda tensor: _hard_sigmoid(b, tensor))
    return _one(b, x, "HardSigmoid", alpha=1 / 6, beta=0.5)


@implements(spec.HardSwish)
def hard_swish(layer: spec.HardSwish, b: LayerEmitter, x: Value) -> Value:
    """``x relu6(x + 3) / 6``."""
    if b.double:
        return _elementwise(b, x, lambda tensor: b.op("Mul", tensor, _hard_sigmoid(b, tensor)))
    return _one(b, x, "HardSwish")


@implements(spec.Tanh)
def tanh(layer: spec.Tanh, b: LayerEmitter, x: Value) -> Value:
    """Hyperbolic tangent."""
    return _one(b, x, "Tanh")


@implements(spec.Softplus)
def softplus(layer: spec.Softplus, b: LayerEmitter, x: Value) -> Value:
    """``log(1 + exp(x)) = max(x, 0) + log(1 + exp(-|x|))``."""
    if not b.double:
        return _one(b, x, "Softplus")

    def formula(tensor: str) -> str:
        small = b.op("Exp", b.op("Neg", b.op("Abs", tensor)))
        return b.op("Add", b.op("Relu", tensor), b.op("Log", b.op("Add", small, b.number(1.0))))

    return _elementwise(b, x, formula)


@implements(spec.Softmax)
def softmax(layer: spec.Softmax, b: LayerEmitter, x: Value) -> Value:
    """Over one axis, wherever it stands."""
    axis = layer.axis % len(x.shape) + 1
    return _one(b, x, "Softmax", axis=x.axis(axis, x.layout))


def _clipped(b: LayerEmitter, tensor: str, low: float, high: float) -> str:
    return b.op("Clip", tensor, b.number(low), b.number(high))


def _hard_sigmoid(b: LayerEmitter, tensor: str) -> str:
    shifted = b.op("Add", tensor, b.number(3.0))
    return b.op("Div", _clipped(b, shifted, 0.0, 6.0), b.number(6.0))


def _with_slope(b: LayerEmitter, tensor: str, slope: str) -> str:
    """``max(x, 0) + slope min(x, 0)``."""
    below = b.op("Mul", b.op("Min", tensor, b.number(0.0)), slope)
    return b.op("Add", b.op("Relu", tensor), below)


def _scaled_elu(b: LayerEmitter, tensor: str, scale: float, alpha: float) -> str:
    """``scale max(x, 0) + scale alpha (exp(min(x, 0)) - 1)``.

    With t = tanh(x / 2), exp(x) - 1 = 2 t / (1 - t), which for x < 0 loses no digits.
    """
    t = b.op("Tanh", b.op("Mul", b.op("Min", tensor, b.number(0.0)), b.number(0.5)))
    below = b.op("Div", b.op("Mul", t, b.number(2 * scale * alpha)), b.op("Sub", b.number(1.0), t))
    above = b.op("Relu", tensor)
    return b.op("Add", above if scale == 1.0 else b.op("Mul", above, b.number(scale)), below)


def _erf(b: LayerEmitter, tensor: str) -> str:
    """The error function, which onnxruntime does not have in float64.

    There erf(x) = x / sqrt(pi) integral of exp(-(x t)^2) for t from -1 to 1, by Gauss-Legendre quadrature. The nodes
    lie in pairs; their weights, which are rounded, are scaled so that erf is 1 at the end.
    """
    if not b.double:
        return b.op("Erf", tensor)
    nodes, shares = (part[_ERF_NODES // 2 :] for part in np.polynomial.legendre.leggauss(_ERF_NODES))
    shares = shares / (_ERF_END * np.exp(-np.square(_ERF_END * nodes)) @ shares)
    clipped = _clipped(b, tensor, -_ERF_END, _ERF_END)
    square = b.op("Unsqueeze", b.op("Mul", clipped, clipped), b.integers([-1]))
    bells = b.op("Exp", b.op("Mul", square, b.floats(-np.square(nodes))))
    integral = b.op("MatMul", bells, b.floats(shares))
    return b.op("Mul", clipped, integral)
