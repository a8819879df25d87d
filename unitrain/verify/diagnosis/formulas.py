"""Other formulas for layers: what frameworks, and ports by hand, compute where the spec pins something else.

Each is a forward function like those of `backends/numpy`: it returns the output and the backward function.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from unitrain.backends.numpy.registry import IMPLEMENTATIONS, Array, Context, Gradients, Parameters, Result
from unitrain.spec.layers.base import LayerSpec


def elementwise(function: Callable[[Array], Array], derivative: Callable[[Array], Array]) -> Any:
    """Return the meaning ``y = function(x)``."""

    def forward(layer: LayerSpec, context: Context, parameters: Parameters, x: Array) -> Result:
        return function(x), lambda dy: ((dy * derivative(x),), {})

    return forward


def identity(layer: LayerSpec, context: Context, parameters: Parameters, x: Array, *others: Array) -> Result:
    """The layer is left out."""
    return x, lambda dy: ((dy, *(np.zeros_like(other) for other in others)), {})


def kink(places: tuple[float, ...], slope: float) -> Any:
    """Return the meaning in which the derivative on the kinks is ``slope``, whatever the layer's own is."""

    def forward(layer: LayerSpec, context: Context, parameters: Parameters, x: Array) -> Result:
        y, back = IMPLEMENTATIONS[type(layer)](layer, context, parameters, x)
        at = np.isin(x, np.array(places, x.dtype))

        def backward(dy: Array) -> Gradients:
            (dx,), gradients = back(dy)
            assert dx is not None
            return (np.where(at, slope * dy, dx),), gradients

        return y, backward

    return forward


def standardised(
    layer: Any,
    context: Context,
    parameters: Parameters,
    x: Array,
    *,
    axes: tuple[int, ...],
    view: tuple[int, ...] | None = None,
    statistics: bool = True,
    correction: int = 0,
    running_correction: int | None = None,
    outside: bool = False,
    centred: bool = True,
    detached: bool = False,
    moves: bool = True,
    momentum: float | None = None,
) -> Result:
    """Normalise with every choice that a port has.

    Parameters
    ----------
    axes
        Of the view, over which mean and variance are taken.
    view
        Shape in which ``x`` is normalised.
    statistics
        Whether they are the batch's own, and not the running ones.
    correction, running_correction
        What is subtracted from the count in the variance, and in the one that moves the running variance.
    outside
        Add epsilon to the root, not under it.
    centred
        Subtract the mean.
    detached
        Treat mean and variance as constants in the backward pass.
    moves
        Whether running statistics move.
    momentum
        Share of the running statistics that is kept, instead of the layer's.
    """
    shaped = x.reshape(view) if view else x
    count = int(np.prod([shaped.shape[axis] for axis in axes]))
    if statistics:
        mean = shaped.mean(axis=axes, keepdims=True) if centred else np.zeros((), x.dtype)
        spread = np.square(shaped - mean).sum(axis=axes, keepdims=True)
        variance = spread / (count - correction)
        if context.training and moves and "running_mean" in parameters:
            kept = layer.momentum if momentum is None else momentum
            moving = spread / (count - (correction if running_correction is None else running_correction))
            for name, value in (("running_mean", mean), ("running_variance", moving)):
                context.update(name, kept * parameters[name] + (1 - kept) * value.reshape(-1))
    else:
        mean, variance = parameters["running_mean"], parameters["running_variance"]
    root = np.sqrt(variance) + layer.epsilon if outside else np.sqrt(variance + layer.epsilon)
    centre = shaped - mean
    xhat_shaped = centre / root
    xhat = xhat_shaped.reshape(x.shape)
    scale = parameters.get("scale")
    y = xhat * scale if scale is not None else xhat
    y = y + parameters["bias"] if "bias" in parameters else y
    lead = tuple(range(x.ndim - (scale.ndim if scale is not None else 1)))

    def backward(dy: Array) -> Gradients:
        gradients = {}
        if "scale" in parameters:
            gradients["scale"] = (dy * xhat).sum(axis=lead)
        if "bias" in parameters:
            gradients["bias"] = dy.sum(axis=lead)
        g = (dy * scale if scale is not None else dy).reshape(shaped.shape)
        dx = g / root
        if statistics and not detached:
            # d root / d x = (x - mean) / ((count - correction) * standard deviation)
            deviation = np.sqrt(variance) if outside else root
            through = (g * centre).sum(axis=axes, keepdims=True) / np.square(root) / deviation / (count - correction)
            dx = dx - centre * through
            if centred:
                dx = dx - (g / root).mean(axis=axes, keepdims=True)
        return (dx.reshape(x.shape),), gradients

    return y, backward


def mean_of_all(layer: Any, context: Context, parameters: Parameters, x: Array, *, factor: str) -> Result:
    """Global average pooling that divides by another count: ``sum`` by none, ``channels`` by that of all elements."""
    y, back = IMPLEMENTATIONS[type(layer)](layer, context, parameters, x)
    positions = x[0, ..., 0].size
    times = float(positions) if factor == "sum" else 1.0 / x.shape[-1]
    return y * times, lambda dy: ((np.asarray(back(dy)[0][0]) * times,), {})


def other_mask(layer: Any, context: Context, parameters: Parameters, x: Array, *, kind: str) -> Result:
    """Dropout with another treatment of the mask.

    ``inverted`` keeps what is to be dropped; ``unscaled`` does not divide by 1 - rate; ``always`` drops in inference
    too; ``never`` drops nowhere; ``scaled later`` multiplies by 1 - rate in inference instead.
    """
    forward = IMPLEMENTATIONS[type(layer)]
    if kind == "never" or (kind in ("unscaled", "inverted") and not context.training):
        return x, lambda dy: ((dy,), {})
    if kind == "scaled later":
        if not context.training:
            return x * (1 - layer.rate), lambda dy: ((dy * (1 - layer.rate),), {})
        kind = "unscaled"
    ones, _ = forward(layer, replace(context, training=True), parameters, np.ones_like(x))
    mask = {
        "inverted": (ones == 0) / (1 - layer.rate),
        "unscaled": (ones != 0) * np.ones((), x.dtype),
        "always": ones,
    }[kind].astype(x.dtype)
    return x * mask, lambda dy: ((dy * mask,), {})


def looked_up(layer: Any, context: Context, parameters: Parameters, x: Array, *, shift: int) -> Result:
    """Embedding that counts rows from another number, wrapping at the ends."""
    table = parameters["table"]
    rows = (x + shift) % len(table)

    def backward(dy: Array) -> Gradients:
        gradient = np.zeros_like(table)
        np.add.at(gradient, rows, dy)
        return (None,), {"table": gradient}

    return table[rows], backward


def ties(layer: Any, context: Context, parameters: Parameters, x: Array, *, shares: bool) -> Result:
    """Global maximum whose gradient goes to all equals, whole or in equal shares."""
    y, _ = IMPLEMENTATIONS[type(layer)](layer, context, parameters, x)
    axes = tuple(range(1, x.ndim - 1))
    equal = x == x.max(axis=axes, keepdims=True)
    weights = equal / equal.sum(axis=axes, keepdims=True) if shares else equal.astype(x.dtype)
    kept = (len(x), *(1,) * len(axes), x.shape[-1])
    return y, lambda dy: ((dy.reshape(kept) * weights,), {})


def align_corners(layer: Any, context: Context, parameters: Parameters, x: Array) -> Result:
    """Bilinear resizing whose corner pixels stay in the corners."""
    return _by_matrices(context, x, _corner_weights)


def asymmetric(layer: Any, context: Context, parameters: Parameters, x: Array) -> Result:
    """Nearest resizing whose pixel i is the old pixel floor(i * in / out)."""
    return _by_matrices(context, x, lambda size, outputs: np.eye(size)[np.arange(outputs) * size // outputs])


def _by_matrices(context: Context, x: Array, weights: Callable[[int, int], Array]) -> Result:
    sides = zip(x.shape[1:3], context.node.output_shape, strict=False)
    down, across = (weights(size, outputs).astype(x.dtype) for size, outputs in sides)
    y = np.einsum("oh,bhwc,pw->bopc", down, x, across)
    return y, lambda dy: ((np.einsum("oh,bopc,pw->bhwc", down, dy, across),), {})


def _corner_weights(size: int, outputs: int) -> Array:
    """Return ``[outputs, size]``: how much of each input goes into each output."""
    places = np.linspace(0.0, size - 1.0, outputs) if outputs > 1 else np.zeros(1)
    low = np.clip(np.floor(places).astype(int), 0, max(size - 2, 0))
    share = places - low
    weights = np.zeros((outputs, size))
    weights[np.arange(outputs), low] += 1 - share
    weights[np.arange(outputs), np.minimum(low + 1, size - 1)] += share
    return weights


def cut(
    layer: Any, context: Context, parameters: Parameters, x: Array, *, whole: LayerSpec, starts: tuple[int, ...]
) -> Result:
    """Transposed convolution of whose full result another part is kept: from ``starts`` on, on each axis."""
    full = replace(context, node=replace(context.node, layer=whole, output_shape=whole.output_shape(x.shape[1:])))
    y, back = IMPLEMENTATIONS[type(layer)](whole, full, parameters, x)
    kept = context.node.output_shape[:-1]
    part = (slice(None), *(slice(start, start + size) for start, size in zip(starts, kept, strict=True)))

    def backward(dy: Array) -> Gradients:
        wide = np.zeros_like(y)
        wide[part] = dy
        return back(wide)

    return y[part], backward


def rearranged(order: Callable[[Array], Array], back: Callable[[Array], Array]) -> Any:
    """Return the meaning in which the input's elements are brought into another order before the layer."""

    def forward(layer: LayerSpec, context: Context, parameters: Parameters, x: Array) -> Result:
        y, backward = IMPLEMENTATIONS[type(layer)](layer, context, parameters, order(x))

        def reverse(dy: Array) -> Gradients:
            (dx,), gradients = backward(dy)
            return (None if dx is None else back(dx),), gradients

        return y, reverse

    return forward


def scaled(factor: float) -> Any:
    """Return the meaning of which result and gradients are ``factor`` times the layer's."""

    def forward(layer: Any, context: Any, parameters: Any, *inputs: Array) -> Any:
        y, back = IMPLEMENTATIONS[type(layer)](layer, context, parameters, *inputs)
        return y * factor, lambda dy: back(dy * factor)

    return forward


def bound(function: Any, **choices: Any) -> Any:
    """Return a formula with its choices made."""
    return partial(function, **choices)
