"""Monte Carlo arithmetic: a float64 run in which every result is moved at random by up to half an ulp of float32.

What so small a move does to a tensor, a right computation in float32 may lose (Parker 1997, Monte Carlo arithmetic).
It shows where numbers cancel: the gradient of a bias before a batch norm is 0, and rounding leaves some of it all the
same.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from unitrain.backends.numpy.reduction import sum_stretched
from unitrain.backends.numpy.registry import Array, Context, Forward, Gradients, Parameters, Result
from unitrain.spec.layers import BatchNorm, Cosine, GroupedNorm, LayerNorm
from unitrain.spec.layers.base import LayerSpec
from unitrain.verify.altered import Change, Functions
from unitrain.verify.twins import normalised
from unitrain.weights.random import stream

# Half a unit in the last place of float32, relative to the number.
HALF_ULP = 2.0**-24
# Layers that compute nothing, or choose: their results are exact, and equal numbers stay equal.
EXACT = frozenset(
    {
        "relu",
        "relu6",
        "max_pool1d",
        "max_pool2d",
        "max_pool3d",
        "global_max_pool",
        "flatten",
        "reshape",
        "permute",
        "padding",
        "upsample1d",
        "concatenate",
        "class_token",
        "pixel_shuffle",
        "pixel_unshuffle",
        "embedding",
    }
)

# Layers that subtract a mean. Who folds it in multiplies the numbers first, and loses an ulp of what is large.
CANCELLING = (BatchNorm, GroupedNorm, LayerNorm)


def moved(array: Array, generator: np.random.Generator) -> Array:
    """Move each number by up to half an ulp of float32; integers stay."""
    if array.dtype.kind != "f":
        return array
    return np.asarray(array * (1.0 + HALF_ULP * generator.uniform(-1.0, 1.0, array.shape)))


def noisy(generator: np.random.Generator, functions: Functions) -> Functions:
    """Return forward functions whose results and gradients are moved, and what they keep of curves.

    Where such a y is near 1, the difference 1 - y has lost most of its digits.
    """
    return {layer: partial(_noisy, forward, generator) for layer, forward in functions.items()}


def _move(generator: np.random.Generator, values: Array) -> None:
    """Move values where they lie."""
    values[...] = moved(values, generator)


def _noisy(
    forward: Forward,
    generator: np.random.Generator,
    layer: LayerSpec,
    context: Context,
    parameters: Parameters,
    *inputs: Array,
) -> Result:
    if isinstance(layer, CANCELLING):
        inputs = tuple(moved(x, generator) for x in inputs)
    y, back = forward(layer, replace(context, kept=partial(_move, generator)), parameters, *inputs)
    if layer.type in EXACT or getattr(layer, "interpolation", "") == "nearest":
        return y, back

    def backward(dy: Array) -> Gradients:
        by_input, by_parameter = back(moved(dy, generator))
        if isinstance(layer, CANCELLING) and (context.training or not isinstance(layer, BatchNorm)):
            by_input = (_cancelled(layer, parameters, inputs[0], dy, by_input[0], generator),)
        if isinstance(layer, Cosine):
            by_input = _turned(layer, inputs, y, dy, by_input, generator)
        return (
            tuple(None if dx is None else moved(np.asarray(dx), generator) for dx in by_input),
            {name: moved(np.asarray(gradient), generator) for name, gradient in by_parameter.items()},
        )

    return moved(np.asarray(y), generator), backward


def _cancelled(
    layer: BatchNorm | GroupedNorm | LayerNorm,
    parameters: Parameters,
    x: Array,
    dy: Array,
    dx: Array | None,
    generator: np.random.Generator,
) -> Array | None:
    """Move the gradient by a norm's input by half an ulp of what it is the rest of.

    It is (g - mean(g) - xhat mean(g xhat)) / spread with g = scale dy. Little may be left of g, and sums of what is
    left are 0, such as the gradient of a bias before the norm; rounding leaves an ulp of g / spread in each.
    The mean is rounded too, and with it xhat has an error that all of them share.
    """
    if dx is None:
        return None
    g = dy * parameters["scale"] if "scale" in parameters else dy
    view, axes = normalised(layer, x.shape)
    rows, g = x.reshape(view), g.reshape(view)
    mean = rows.mean(axis=axes, keepdims=True)
    spread = np.sqrt(rows.var(axis=axes, keepdims=True) + layer.epsilon)
    slope = (g * (rows - mean) / spread).mean(axis=axes, keepdims=True)
    of_each = np.abs(g / spread) * generator.uniform(-1.0, 1.0, rows.shape)
    of_mean = mean * slope / spread**2 * generator.uniform(-1.0, 1.0, mean.shape)
    return np.asarray(dx + HALF_ULP * (of_each + of_mean).reshape(dx.shape))


def _turned(
    layer: Cosine,
    inputs: tuple[Array, ...],
    y: Array,
    dy: Array,
    by_input: tuple[Array | None, ...],
    generator: np.random.Generator,
) -> tuple[Array | None, ...]:
    """Move the gradients of a cosine by half an ulp of the terms whose difference they are.

    By a it is dy (v - y u) / |a|, with u = a / |a| and v = b / |b|. Where a and b point the same way nothing is left of
    it but the rounding of dy v / |a| and of dy y u / |a|.
    """
    y, dy = (y, dy) if layer.keep_axis else (y[..., None], dy[..., None])
    norms = [np.sqrt(np.maximum(np.square(x).sum(axis=-1, keepdims=True), layer.epsilon**2)) for x in inputs]
    units = [x / norm for x, norm in zip(inputs, norms, strict=True)]
    found: list[Array | None] = []
    for own, other, norm, x, dx in zip(units, units[::-1], norms, inputs, by_input, strict=True):
        terms = np.stack(np.broadcast_arrays(dy * other / norm, dy * y * own / norm))
        lost = sum_stretched((terms * generator.uniform(-1.0, 1.0, terms.shape)).sum(axis=0), x.shape)
        found.append(None if dx is None else dx + HALF_ULP * lost)
    return tuple(found)


def noise(seed: int, number: int) -> Change:
    """Return the change for `AlteredBackend`: a run of its own for each ``number``."""
    return partial(noisy, stream(seed, "verify", "noise", number))
