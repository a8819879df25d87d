"""Layers that join several inputs."""

from __future__ import annotations

from functools import reduce

import numpy as np

from unitrain.backends.numpy.reduction import sum_stretched
from unitrain.backends.numpy.registry import Array, Context, Gradients, Parameters, Result, implements
from unitrain.spec.layers.merge import Add, Concatenate, Divide, Multiply, Subtract


@implements(Add)
def add(layer: Add, context: Context, parameters: Parameters, *inputs: Array) -> Result:
    """``y = a + b + ...``: every input gets dy, summed over the axes along which it was stretched."""

    def backward(dy: Array) -> Gradients:
        return tuple(sum_stretched(dy, x.shape) for x in inputs), {}

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
            gradients.append(sum_stretched(dy * others, x.shape))
        return tuple(gradients), {}

    return reduce(np.multiply, inputs), backward


@implements(Subtract)
def subtract(layer: Subtract, context: Context, parameters: Parameters, a: Array, b: Array) -> Result:
    """``y = a - b``: da = dy and db = -dy, summed as for `add`."""
    return a - b, lambda dy: ((sum_stretched(dy, a.shape), sum_stretched(-dy, b.shape)), {})


@implements(Divide)
def divide(layer: Divide, context: Context, parameters: Parameters, a: Array, b: Array) -> Result:
    """``y = a / b``: da = dy / b and db = -y dy / b, summed as for `add`."""
    with np.errstate(divide="ignore", invalid="ignore"):
        y = a / b

    def backward(dy: Array) -> Gradients:
        with np.errstate(divide="ignore", invalid="ignore"):
            da = dy / b
            return (sum_stretched(da, a.shape), sum_stretched(-y * da, b.shape)), {}

    return y, backward


@implements(Concatenate)
def concatenate(layer: Concatenate, context: Context, parameters: Parameters, *inputs: Array) -> Result:
    """The inputs side by side along one axis: each gets back its part of dy."""
    axis = layer.axis % (inputs[0].ndim - 1) + 1
    ends = np.cumsum([x.shape[axis] for x in inputs])[:-1]

    def backward(dy: Array) -> Gradients:
        return tuple(np.split(dy, ends, axis=axis)), {}

    return np.concatenate(inputs, axis=axis), backward
