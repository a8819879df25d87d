"""Monte Carlo arithmetic: a float64 run in which every result is moved at random by up to half an ulp of float32.

What so small a move does to a tensor, a right computation in float32 may lose (Parker 1997, Monte Carlo arithmetic).
It shows where numbers cancel: the gradient of a bias before a batch norm is 0, and rounding leaves some of it all the
same.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from unitrain.backends.numpy.registry import Array, Context, Forward, Gradients, Parameters, Result
from unitrain.spec.layers.base import LayerSpec
from unitrain.verify.altered import Change, Functions
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
        "global_max_pool",
        "flatten",
        "reshape",
        "permute",
        "padding",
        "upsample1d",
        "concatenate",
        "embedding",
    }
)

# Layers that subtract a mean. Who folds it in multiplies the numbers first, and loses an ulp of what is large.
CANCELLING = frozenset({"batch_norm", "group_norm", "layer_norm"})


def moved(array: Array, generator: np.random.Generator) -> Array:
    """Move each number by up to half an ulp of float32; integers stay."""
    if array.dtype.kind != "f":
        return array
    return np.asarray(array * (1.0 + HALF_ULP * generator.uniform(-1.0, 1.0, array.shape)))


def noisy(generator: np.random.Generator, functions: Functions) -> Functions:
    """Return forward functions whose results and gradients are moved."""
    return {layer: partial(_noisy, forward, generator) for layer, forward in functions.items()}


def _noisy(
    forward: Forward,
    generator: np.random.Generator,
    layer: LayerSpec,
    context: Context,
    parameters: Parameters,
    *inputs: Array,
) -> Result:
    if layer.type in CANCELLING:
        inputs = tuple(moved(x, generator) for x in inputs)
    y, back = forward(layer, context, parameters, *inputs)
    if layer.type in EXACT or getattr(layer, "interpolation", "") == "nearest":
        return y, back

    def backward(dy: Array) -> Gradients:
        by_input, by_parameter = back(moved(dy, generator))
        return (
            tuple(None if dx is None else moved(np.asarray(dx), generator) for dx in by_input),
            {name: moved(np.asarray(gradient), generator) for name, gradient in by_parameter.items()},
        )

    return moved(np.asarray(y), generator), backward


def noise(seed: int, number: int) -> Change:
    """Return the change for `AlteredBackend`: a run of its own for each ``number``."""
    return partial(noisy, stream(seed, "verify", "noise", number))
