"""Layers that move elements: each backward moves them back, and adds up where one was used several times."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from unitrain.backends.numpy.registry import Array, Context, Gradients, Parameters, Result, implements
from unitrain.spec.layers.shape import Flatten, Padding, Permute, Reshape, Upsample1d, Upsample2d


@implements(Flatten, Reshape)
def reshape(layer: Flatten | Reshape, context: Context, parameters: Parameters, x: Array) -> Result:
    """The same elements in the same order, another shape."""

    def backward(dy: Array) -> Gradients:
        return (_batch_kept(dy, x.shape),), {}

    return _batch_kept(x, (len(x), *context.node.output_shape)), backward


def _batch_kept(x: Array, shape: tuple[int, ...]) -> Array:
    """Reshape; where the batch is innermost in memory it stays so, and long runs are moved, not single numbers."""
    if x.ndim < 2 or x.strides[0] != x.itemsize or len(x) == 1:
        return x.reshape(shape)
    return np.moveaxis(np.moveaxis(x, 0, -1).reshape(*shape[1:], len(x)), -1, 0)


@implements(Permute)
def permute(layer: Permute, context: Context, parameters: Parameters, x: Array) -> Result:
    """Reorder the axes; back by the inverse order."""
    order = (0, *(axis + 1 for axis in layer.axes))

    def backward(dy: Array) -> Gradients:
        return (dy.transpose(np.argsort(order)),), {}

    return x.transpose(order), backward


@implements(Padding)
def padding(layer: Padding, context: Context, parameters: Parameters, x: Array) -> Result:
    """Add elements at the ends of axes; an element that is copied there also gets its copies' gradients."""
    amounts = ((0, 0), *layer.all_amounts(x.ndim - 1))
    inner = tuple(slice(before, before + size) for (before, _), size in zip(amounts, x.shape, strict=True))
    if layer.mode == "constant":
        return np.pad(x, amounts, constant_values=layer.value), lambda dy: ((dy[inner],), {})

    def backward(dy: Array) -> Gradients:
        for axis in range(1, x.ndim):
            dy = _fold_ends(dy, axis, amounts[axis], layer.mode)
        return (dy,), {}

    return np.pad(x, amounts, mode=layer.mode), backward


def _fold_ends(dy: Array, axis: int, amounts: tuple[int, int], mode: str) -> Array:
    """Undo the padding of one axis: every copy's gradient is added to the element it was copied from."""
    before, after = amounts
    size = dy.shape[axis] - before - after
    if size == dy.shape[axis]:
        return dy
    dy = np.moveaxis(dy, axis, 0)
    dx = dy[before : before + size].copy()
    for distance in range(1, before + 1):
        dx[distance if mode == "reflect" else 0] += dy[before - distance]
    for distance in range(1, after + 1):
        dx[size - 1 - distance if mode == "reflect" else size - 1] += dy[before + size - 1 + distance]
    return np.moveaxis(dx, 0, axis)


@implements(Upsample1d)
def upsample1d(layer: Upsample1d, context: Context, parameters: Parameters, x: Array) -> Result:
    """Repeat along the length."""
    y, back = _repeat(x, 1, layer.factor[0])
    return y, lambda dy: ((back(dy),), {})


@implements(Upsample2d)
def upsample2d(layer: Upsample2d, context: Context, parameters: Parameters, x: Array) -> Result:
    """Enlarge the height, then the width: both interpolations act on each axis alone."""
    enlarge = _repeat if layer.interpolation == "nearest" else _interpolate
    tall, back_height = enlarge(x, 1, layer.factor[0])
    y, back_width = enlarge(tall, 2, layer.factor[1])
    return y, lambda dy: ((back_height(back_width(dy)),), {})


def _split(shape: tuple[int, ...], axis: int, factor: int) -> tuple[int, ...]:
    """Return ``shape`` with the enlarged axis written as two: the source element and the copy."""
    return (*shape[: axis + 1], factor, *shape[axis + 1 :])


def _repeat(x: Array, axis: int, factor: int) -> tuple[Array, Callable[[Array], Array]]:
    """``y[factor i + p] = x[i]``: dx[i] is the sum over p."""
    return np.repeat(x, factor, axis=axis), lambda dy: dy.reshape(_split(x.shape, axis, factor)).sum(axis + 1)


def _interpolate(x: Array, axis: int, factor: int) -> tuple[Array, Callable[[Array], Array]]:
    """Linear interpolation with half-pixel centres along one axis, by a whole factor.

    Output ``factor i + p`` lies at source coordinate ``i + t``, t = (p + 1/2) / factor - 1/2, |t| < 1/2, and
    is (1 - |t|) x[i] + |t| x[i + sign(t)]. Beyond an end stands the end element: ``edge`` padding by one.
    """
    size = x.shape[axis]
    amounts = tuple((1, 1) if position == axis else (0, 0) for position in range(x.ndim))
    padded = np.moveaxis(np.pad(x, amounts, mode="edge"), axis, 0)
    phases = []
    for p in range(factor):
        t = (p + 0.5) / factor - 0.5
        phases.append((p, abs(t), slice(0, size) if t < 0 else slice(2, size + 2)))
    y = np.empty((size, factor, *padded.shape[1:]), dtype=x.dtype)
    for p, weight, neighbour in phases:
        y[:, p] = (1 - weight) * padded[1 : size + 1] + weight * padded[neighbour]

    def backward(dy: Array) -> Array:
        parts = np.moveaxis(dy, axis, 0).reshape(y.shape)
        total = np.zeros(padded.shape, dtype=dy.dtype)
        for p, weight, neighbour in phases:
            total[1 : size + 1] += (1 - weight) * parts[:, p]
            total[neighbour] += weight * parts[:, p]
        return _fold_ends(np.moveaxis(total, 0, axis), axis, (1, 1), "edge")

    return np.moveaxis(y.reshape(size * factor, *padded.shape[1:]), 0, axis), backward
