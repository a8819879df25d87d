"""Layers that join several inputs."""

from __future__ import annotations

from functools import reduce

import numpy as np

from unitrain.backends.numpy.registry import Array, Context, Gradients, Parameters, Result, implements
from unitrain.spec.layers.merge import Add, Concatenate, Multiply


def _sum_stretched(dy: Array, shape: tuple[int, ...]) -> Array:
    """Sum a gradient over the axes along which an input of ``shape`` was stretched."""
    axes = tuple(axis for axis, (wide, own) in enumerate(zip(dy.shape, shape, strict=True)) if wide != own)
    return dy.sum(axis=axes, keepdims=True) if axes else dy


@implements(Add)
def add(layer: Add, context: Context, parameters: Parameters, *inputs: Array) -> Result:
    """``y = a + b + ...``: every input gets dy, summed over the axes along which it was stretched."""

    def backward(dy: Array) -> Gradients:
        return tuple(_sum_stretched(dy, x.shape) for x in inputs), {}

    return reduce(np.add, inputs), backward


@implements(Multiply)
def multiply(layer: Multiply, context: Context, parameters: Parameters, *inputs: Array) -> Result:
    """``y = a b ...``: every input gets dy times the product of the others, summed as for `add`.

    The product is taken anew, not by dividing y, so that zeros are right.
    """

    def backward(dy: Array) -> Gradients:
        gradients = []
        for position, x in enumerate(inputs):
            others = reduce(np.multiply, inputs[:position] + inputs[position + 1 :])
            gradients.append(_sum_stretched(dy * others, x.shape))
        return tuple(gradients), {}

    return reduce(np.multiply, inputs), backward


@implements(Concatenate)
def concatenate(layer: Concatenate, context: Context, parameters: Parameters, *inputs: Array) -> Result:
    """The inputs side by side along one axis: each gets back its part of dy."""
    axis = layer.axis % (inputs[0].ndim - 1) + 1
    ends = np.cumsum([x.shape[axis] for x in inputs])[:-1]

    def backward(dy: Array) -> Gradients:
        return tuple(np.split(dy, ends, axis=axis)), {}

    return np.concatenate(inputs, axis=axis), backward
