"""Layers along one axis."""

from __future__ import annotations

from typing import Any

import numpy as np

from unitrain.backends.indices import refuse_outside
from unitrain.backends.numpy.reduction import sum_by_index
from unitrain.backends.numpy.registry import Array, Context, Gradients, Parameters, Result, implements
from unitrain.spec.layers.axis import Gather, Maximum, Mean, Select, Slice, Split, Stack, Sum


def _axis(layer: Any, x: Array) -> int:
    """Return the layer's axis with the batch counted."""
    return int(layer.axis % (x.ndim - 1)) + 1


@implements(Slice, Split)
def take(layer: Slice | Split, context: Context, parameters: Parameters, x: Array) -> Result:
    """Positions of an axis: they get dy, the others 0."""
    positions = layer.positions(x.shape[1:])
    place = (slice(None),) * _axis(layer, x) + (slice(positions.start, positions.stop, positions.step),)

    def backward(dy: Array) -> Gradients:
        dx = np.zeros(x.shape, dy.dtype)
        dx[place] = dy
        return (dx,), {}

    return x[place], backward


@implements(Select)
def select(layer: Select, context: Context, parameters: Parameters, x: Array) -> Result:
    """One position of an axis: it gets dy, the others 0."""
    place = (slice(None),) * _axis(layer, x) + (layer.index,)

    def backward(dy: Array) -> Gradients:
        dx = np.zeros(x.shape, dy.dtype)
        dx[place] = dy
        return (dx,), {}

    return x[place], backward


@implements(Gather)
def gather(layer: Gather, context: Context, parameters: Parameters, x: Array, indices: Array) -> Result:
    """``y[n, i] = x[n, indices[n, i]]``: dx[n, l] is the sum of dy[n, i] over all i with indices[n, i] = l.

    Raises
    ------
    InputError
        An index is outside ``0 .. length - 1``.
    """
    samples, length = x.shape[:2]
    refuse_outside(layer.type, context.node.name, indices, length)
    rows = (indices + length * np.arange(samples)[:, None]).reshape(-1)

    def backward(dy: Array) -> Gradients:
        return (sum_by_index(dy.reshape(-1, *x.shape[2:]), rows, samples * length).reshape(x.shape), None), {}

    return x.reshape(-1, *x.shape[2:])[rows].reshape(*indices.shape, *x.shape[2:]), backward


@implements(Stack)
def stack(layer: Stack, context: Context, parameters: Parameters, *inputs: Array) -> Result:
    """Inputs along a new axis: each gets back its place in dy."""
    axis = layer.axis % inputs[0].ndim + 1

    def backward(dy: Array) -> Gradients:
        return tuple(np.moveaxis(dy, axis, 0)), {}

    return np.stack(inputs, axis), backward


@implements(Sum)
def total(layer: Sum, context: Context, parameters: Parameters, x: Array) -> Result:
    """``y = sum(x)``: every position gets dy."""
    axis = _axis(layer, x)

    def backward(dy: Array) -> Gradients:
        return (np.broadcast_to(dy if layer.keep_axis else np.expand_dims(dy, axis), x.shape),), {}

    return x.sum(axis=axis, keepdims=layer.keep_axis), backward


@implements(Mean)
def mean(layer: Mean, context: Context, parameters: Parameters, x: Array, *masks: Array) -> Result:
    """``y = sum(m x) / sum(m)``, 0 where m is 0 throughout: dx = m dy / sum(m)."""
    axis = _axis(layer, x)
    share: Array | float = 1.0 / x.shape[axis]
    for mask in masks:
        kept = (mask != 0).reshape(len(x), *layer.mask_view(x.shape[1:]))
        share = kept.astype(x.dtype) / np.maximum(kept.sum(axis=axis, keepdims=True), 1).astype(x.dtype)
    y = (x * share).sum(axis=axis, keepdims=layer.keep_axis) if masks else x.mean(axis=axis, keepdims=layer.keep_axis)

    def backward(dy: Array) -> Gradients:
        spread = dy if layer.keep_axis else np.expand_dims(dy, axis)
        return (np.broadcast_to(spread * share, x.shape), *(None for _ in masks)), {}

    return y, backward


@implements(Maximum)
def maximum(layer: Maximum, context: Context, parameters: Parameters, x: Array, *masks: Array) -> Result:
    """Largest along an axis: the first that has it gets dy."""
    axis = _axis(layer, x)
    seen, empty = x, None
    for mask in masks:
        kept = (mask != 0).reshape(len(x), *layer.mask_view(x.shape[1:]))
        seen = np.where(kept, x, -np.inf)
        empty = ~kept.any(axis=axis, keepdims=True)
    first = seen.argmax(axis=axis, keepdims=True)
    y = np.take_along_axis(x, first, axis)
    y = y if empty is None else np.where(empty, 0, y)

    def backward(dy: Array) -> Gradients:
        spread = dy if layer.keep_axis else np.expand_dims(dy, axis)
        dx = np.zeros(x.shape, dy.dtype)
        np.put_along_axis(dx, first, spread if empty is None else np.where(empty, 0, spread), axis)
        return (dx, *(None for _ in masks)), {}

    return y if layer.keep_axis else y.squeeze(axis), backward
