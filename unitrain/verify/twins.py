"""A second right way to compute norms, activations, attention, gradients of biases: its errors are rounding, no fault.

NumPy subtracts the mean first, and adds in pairs. Frameworks fold the mean in: with r = 1 / sqrt(var + eps) they
compute x * r + (-mean * r), often with scale and bias folded in as well; in the backward pass sums of dy * x instead of
dy * xhat; and they add one number after the other. Where a mean is large beside the spread, down to a single number
whose spread is 0, that loses digits which NumPy keeps. A float32 run of these formulas is therefore a yardstick.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import prod
from typing import Any

import numpy as np

from unitrain.backends.numpy.activation import SELU_ALPHA, SELU_SCALE, gelu
from unitrain.backends.numpy.attention import Flow, attend, softmax
from unitrain.backends.numpy.registry import Array, Context, Forward, Gradients, Parameters, Result
from unitrain.spec.layers import (
    AFFINE_LAYERS,
    Attention,
    BatchNorm,
    Elu,
    Gelu,
    GroupedNorm,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    LayerSpec,
    RmsNorm,
    Selu,
    Sigmoid,
    Silu,
    SimpleRnn,
    Softmax,
)
from unitrain.verify.altered import Functions

Axes = tuple[int, ...]


def _folded(
    layer: Any, parameters: Parameters, x: Array, axes: tuple[int, ...], view: tuple[int, ...]
) -> tuple[Result, Array, Array]:
    """Normalise ``x``, seen as ``view``, over ``axes``; also return mean and variance."""
    shaped = x.reshape(view)
    count = _count(shaped, axes)
    mean = _sum(shaped, axes) / count
    variance = _sum(np.square(shaped - mean), axes) / count
    return _result(layer, parameters, x, view, axes, mean, variance, constant=False), mean, variance


def _result(
    layer: Any,
    parameters: Parameters,
    x: Array,
    view: tuple[int, ...],
    axes: tuple[int, ...],
    mean: Array,
    variance: Array,
    *,
    constant: bool,
) -> Result:
    shaped = x.reshape(view)
    inverse = 1 / np.sqrt(variance + layer.epsilon)
    xhat = _fused(shaped, inverse, -mean * inverse).reshape(x.shape)
    scale = parameters.get("scale")
    bias = parameters.get("bias")
    if isinstance(layer, LayerNorm):
        y = xhat if scale is None else xhat * scale
        y = y if bias is None else y + bias
    else:
        # Scale and bias are folded in too: what that loses differs from channel to channel.
        channels = view[2:] if isinstance(layer, GroupedNorm) else view[-1:]
        factor = inverse if scale is None else inverse * scale.reshape(channels)
        offset = -mean * factor if bias is None else bias.reshape(channels) - mean * factor
        y = _fused(shaped, factor, offset).reshape(x.shape)
    lead = tuple(range(x.ndim - (1 if scale is None else scale.ndim)))

    def backward(dy: Array) -> Gradients:
        gradients = {}
        if scale is not None:
            gradients["scale"] = _sum(dy * xhat, lead).reshape(scale.shape)
        if bias is not None:
            gradients["bias"] = _sum(dy, tuple(range(x.ndim - bias.ndim))).reshape(bias.shape)
        g = (dy if scale is None else dy * scale).reshape(view)
        # Which two of the three factors are multiplied first differs by layer.
        root = np.broadcast_to(inverse, view).reshape(x.shape)
        ones = np.ones((), x.dtype)
        first, second = (dy, root) if isinstance(layer, GroupedNorm) else (dy * root, ones)
        second = second if scale is None else second * scale
        if constant:
            return (first * second,), gradients
        count = _count(shaped, axes)
        sum_g, sum_gx = _sum(g, axes), _sum(g * shaped, axes)
        slope = _fused(sum_g, mean, -sum_gx) * inverse**3 / count
        rest = _fused(slope, shaped, -slope * mean - sum_g * inverse / count)
        return (_fused(first, second, rest.reshape(x.shape)),), gradients

    return y, backward


def _count(x: Array, axes: tuple[int, ...]) -> Any:
    return x.dtype.type(np.prod([x.shape[axis] for axis in axes]))


def _sum(x: Array, axes: tuple[int, ...]) -> Array:
    """Add one number after the other, where NumPy's own sum adds in pairs; keeps the axes."""
    if not axes:
        return x
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    rows = x.transpose(*axes, *kept).reshape(-1, *(x.shape[axis] for axis in kept))
    total: Array = np.cumsum(rows, axis=0, dtype=x.dtype)[-1]
    return total.reshape([1 if axis in axes else x.shape[axis] for axis in range(x.ndim)])


def _fused(x: Array, y: Array, z: Array) -> Array:
    """Return x * y + z with one rounding, as processors' multiply-add has it: float64 holds the product exactly."""
    result: Array = (x.astype(np.float64) * y + z).astype(x.dtype)
    return result


def _batch_norm(layer: BatchNorm, context: Context, parameters: Parameters, x: Array) -> Result:
    _, axes = normalised(layer, x.shape)
    if not context.training:
        mean, variance = parameters["running_mean"], parameters["running_variance"]
        return _result(layer, parameters, x, x.shape, axes, mean, variance, constant=True)
    result, mean, variance = _folded(layer, parameters, x, axes, x.shape)
    for name, value in (("running_mean", mean), ("running_variance", variance)):
        context.update(name, layer.momentum * parameters[name] + (1 - layer.momentum) * value.reshape(-1))
    return result


def _one_by_one(layer: LayerNorm | GroupedNorm, context: Context, parameters: Parameters, x: Array) -> Result:
    view, axes = normalised(layer, x.shape)
    return _folded(layer, parameters, x, axes, view)[0]


def normalised(layer: BatchNorm | GroupedNorm | LayerNorm, shape: tuple[int, ...]) -> tuple[tuple[int, ...], Axes]:
    """Return how an input of ``shape`` is to be seen, and over which axes of that view it is normalised."""
    match layer:
        case BatchNorm():
            return shape, tuple(range(len(shape) - 1))
        case LayerNorm():
            return shape, tuple(range(len(shape) - layer.axes, len(shape)))
        case GroupedNorm():
            positions, groups = prod(shape[1:-1]), layer.groups_of(shape[-1])
            return (shape[0], positions, groups, shape[-1] // groups), (1, 3)


def _rms_norm(layer: RmsNorm, context: Context, parameters: Parameters, x: Array) -> Result:
    """With sums one after the other, and sums of dy * x in the backward pass."""
    axes, count = (x.ndim - 1,), x.dtype.type(x.shape[-1])
    inverse = 1 / np.sqrt(_sum(np.square(x), axes) / count + layer.epsilon)
    scale = parameters.get("scale")
    xhat = x * inverse

    def backward(dy: Array) -> Gradients:
        gradients = {}
        if scale is not None:
            gradients["scale"] = _sum(dy * xhat, tuple(range(x.ndim - 1))).reshape(scale.shape)
        g = dy if scale is None else dy * scale
        slope = -_sum(g * x, axes) * inverse**3 / count
        return (_fused(slope, x, g * inverse),), gradients

    return xhat if scale is None else xhat * scale, backward


def _softmax(layer: Softmax, context: Context, parameters: Parameters, x: Array) -> Result:
    """With the last bit of every exponential rounded down: of a single number the sum is not quite 1."""
    axis = layer.axis % (x.ndim - 1) + 1
    powers = np.nextafter(np.exp(x - x.max(axis=axis, keepdims=True)), x.dtype.type(0))
    total = powers.sum(axis=axis, keepdims=True)
    y = np.nextafter(powers / total, x.dtype.type(0))
    return y, lambda dy: (((dy - (dy * y).sum(axis=axis, keepdims=True)) * y,), {})


def _elu(layer: Elu | Selu, context: Context, parameters: Parameters, x: Array) -> Result:
    """With exp(x) - 1, of which little is left where x is small.

    The slope below 0, alpha exp(x), is taken from the result, as y + alpha, by TensorFlow and by torch in place: of it
    little is left where x is far below 0. In float64 it is the reference's own: no yardstick shows what is lost there.
    """
    scale, alpha = (SELU_SCALE, SELU_ALPHA) if isinstance(layer, Selu) else (1.0, layer.alpha)
    e, largest = np.exp(np.minimum(x, 0)), x.dtype.type(scale * alpha)
    y = scale * (np.maximum(x, 0) + alpha * (e - 1))
    slope = np.where(x > 0, np.full_like(x, scale), largest * e if x.dtype == np.float64 else y + largest)
    return y, lambda dy: ((dy * slope,), {})


def _gelu(layer: Gelu, context: Context, parameters: Parameters, x: Array) -> Result:
    """With erf by five terms, 1.5e-7 off at most (Abramowitz & Stegun 1964, 7.1.26), as torch's kernels have it.

    Or with a tanh whose last bit is rounded towards 0, see `_logistic`: of its slope, 1 - tanh^2, little is left where
    it is close to 1, and x and its square take that several times. In float64 it is the reference's own, for nobody
    computes that with five terms.
    """
    if x.dtype == np.float64:
        return gelu(layer, context, parameters, x)
    if layer.approximate == "tanh":
        root = x.dtype.type(np.sqrt(2.0 / np.pi))
        t = np.nextafter(np.tanh(root * (x + 0.044715 * x * x * x)), x.dtype.type(0))
        steep = root * (1 + 3 * 0.044715 * x * x)
        return x * (0.5 * (1 + t)), lambda dy: ((dy * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * steep),), {})
    z = np.abs(x) / x.dtype.type(np.sqrt(2.0))
    t = 1 / (1 + x.dtype.type(0.3275911) * z)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    erf = np.sign(x) * (1 - series * np.exp(-z * z))
    slope = x * np.exp(-0.5 * x * x) / x.dtype.type(np.sqrt(2.0 * np.pi))
    # The 1 comes last, and takes all but a few digits of what is small: nothing is left below -6.2.
    return x * (0.5 * (1 + erf)), lambda dy: ((dy * (0.5 * (1 + (erf + 2 * slope))),), {})


def _logistic(x: Array) -> Array:
    """(1 + tanh(x / 2)) / 2, or a fraction of polynomials: right beside 1, with few digits where it is small.

    The last bit of every tanh is rounded towards 0, as ONNX Runtime's polynomials have it about as often as not: far
    below 0 that is half an ulp of 1/2 in every result, where rounding to nearest leaves less by chance.
    In float64 it is 1 / (1 + exp(-x)): nobody computes it with few digits there, and no yardstick shows what is lost.
    """
    s: Array = (
        1 / (1 + np.exp(-x)) if x.dtype == np.float64 else 0.5 * (1 + np.nextafter(np.tanh(0.5 * x), x.dtype.type(0)))
    )
    return s


def _sigmoid(layer: Sigmoid, context: Context, parameters: Parameters, x: Array) -> Result:
    """As it comes out of `_logistic`."""
    s = _logistic(x)
    return s, lambda dy: ((dy * s * (1 - s),), {})


def _silu(layer: Silu, context: Context, parameters: Parameters, x: Array) -> Result:
    """With that sigmoid."""
    s = _logistic(x)
    return x * s, lambda dy: ((dy * s * (1 + x * (1 - s)),), {})


def _attention(layer: Attention, context: Context, parameters: Parameters, x: Array, *sides: Array) -> Result:
    """As fused kernels have it (Dao et al. 2022, FlashAttention, section 3.1 and B.2).

    In the backward pass P is exp(S - log(sum(exp(S)))): what rounding leaves of large S is then in whole rows, which no
    longer add up to 1. And sum(dP P) is sum(dC C): C = P V and dP = dC V^T, so both are the same sum. Where all values
    are equal every dP - sum(dP P) is 0, and NumPy, whose rounding then is the same in both terms, finds exactly that.
    """

    def weigh(scores: Array, kept: Array | None) -> tuple[Array, Array]:
        if kept is not None:
            scores = np.where(kept, scores, np.finfo(scores.dtype).min)
        largest = scores.max(axis=-1, keepdims=True)
        total = largest + np.log(np.exp(scores - largest).sum(axis=-1, keepdims=True))
        again = np.exp(scores - total)
        return softmax(scores, kept), again if kept is None else np.where(kept, again, 0)

    def shares(flow: Flow) -> Array:
        return _sum(flow.d_mixed * flow.mixed, (flow.mixed.ndim - 1,)).reshape(*flow.weights.shape[:-1], 1)

    return attend(layer, context, parameters, x, sides, weigh, shares)


def _bias_in_order(
    forward: Forward, layer: LayerSpec, context: Context, parameters: Parameters, *inputs: Array
) -> Result:
    """The layer with the gradient of its bias added up one number after the other, as TensorFlow does it.

    Behind a mean over positions all of them are equal, and what each sum rounds away adds up.
    """
    y, back = forward(layer, context, parameters, *inputs)

    def backward(dy: Array) -> Gradients:
        by_input, by_parameter = back(dy)
        if "bias" in by_parameter:
            bias = _sum(dy, tuple(range(dy.ndim - 1))).reshape(-1)
            by_parameter = {**by_parameter, "bias": bias}
        return by_input, by_parameter

    return y, backward


def _beside_one(values: Array) -> None:
    """Leave of a tanh what 2 / (1 + exp(-2 x)) - 1 leaves, nothing below an ulp of 1; in float64 all of it."""
    if values.dtype != np.float64:
        values[...] = (values + 1) - 1


def _simple_rnn(forward: Forward, layer: SimpleRnn, context: Context, parameters: Parameters, *inputs: Array) -> Result:
    """With such a tanh in every step, as ONNX Runtime has it: where steps are small, few digits are left."""
    return forward(layer, replace(context, kept=_beside_one), parameters, *inputs)


TWINS: dict[type[LayerSpec], Forward] = {
    Attention: _attention,
    BatchNorm: _batch_norm,
    LayerNorm: _one_by_one,
    GroupNorm: _one_by_one,
    InstanceNorm: _one_by_one,
    RmsNorm: _rms_norm,
    Softmax: _softmax,
    Elu: _elu,
    Gelu: _gelu,
    Selu: _elu,
    Sigmoid: _sigmoid,
    Silu: _silu,
}


def twins(functions: Functions) -> Functions:
    """Return the other ways to compute, given NumPy's own: the `Change` of an `AlteredBackend`."""
    in_order = {layer: partial(_bias_in_order, functions[layer]) for layer in AFFINE_LAYERS}
    return {**TWINS, **in_order, SimpleRnn: partial(_simple_rnn, functions[SimpleRnn])}
