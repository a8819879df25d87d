"""Draws initial weights: once, in float64, keyed by seed and canonical name, rounded to float32."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, assert_never

import numpy as np
import numpy.typing as npt

from unitrain.graph.graph import Graph
from unitrain.machine import available_memory
from unitrain.spec.errors import InputError
from unitrain.spec.initializers import (
    Constant,
    Distribution,
    Glorot,
    He,
    Initializer,
    Lecun,
    Normal,
    Ones,
    Orthogonal,
    TruncatedNormal,
    Uniform,
    Zeros,
)
from unitrain.spec.layers.base import Parameter
from unitrain.weights.random import stream

# Standard deviation of a unit normal cut at two sigma.
TRUNCATED_STDDEV = 0.87962566103423978

# Of each parameter, at the least: as drawn in float64, and as given in float32.
_BYTES = 12


def initialize(graph: Graph, seed: int) -> dict[str, npt.NDArray[np.float32]]:
    """Draw all parameters of a graph: canonical name to float32 array in canonical layout.

    Each parameter has a stream of its own, so neither the order of layers nor other layers matter.

    Raises
    ------
    InputError
        The weights do not fit into memory.
    """
    weights = {}
    numbers = sum(parameter.size for parameter in graph.parameters.values())
    if _BYTES * numbers > available_memory():
        largest = max(graph.parameters.items(), key=lambda item: item[1].size)
        raise InputError(
            f"there is no memory for the model's {numbers:,} parameters",
            found=f"'{largest[0]}' has shape {list(largest[1].shape)}",
            allowed=f"{available_memory() // _BYTES:,} parameters on this machine now",
        )
    for name, parameter in graph.parameters.items():
        try:
            weights[name] = draw(parameter, stream(seed, "weights", name)).astype(np.float32)
        except MemoryError:
            raise InputError(
                f"there is no memory for '{name}'", found=f"shape {list(parameter.shape)}, {parameter.size:,} numbers"
            ) from None
    return weights


def draw(parameter: Parameter, generator: np.random.Generator) -> npt.NDArray[np.float64]:
    """Draw one parameter in float64."""
    values = _drawn(parameter, generator)
    if parameter.raised is not None:
        first, end, by = parameter.raised
        values[first:end] += by
    return values


def _drawn(parameter: Parameter, generator: np.random.Generator) -> npt.NDArray[np.float64]:
    shape = parameter.shape
    initializer: Initializer = parameter.initializer
    match initializer:
        case Zeros():
            return np.zeros(shape)
        case Ones():
            return np.ones(shape)
        case Constant(value=value):
            return np.full(shape, value)
        case Uniform(low=low, high=high):
            return generator.uniform(low, high, shape)
        case Normal(stddev=stddev):
            return generator.normal(0.0, stddev, shape)
        case TruncatedNormal(stddev=stddev):
            return _truncated(generator, stddev, shape)
        case Glorot() | He() | Lecun():
            fan_in, fan_out = parameter.fans
            variance = {"glorot": 2.0 / (fan_in + fan_out), "he": 2.0 / fan_in, "lecun": 1.0 / fan_in}
            stddev = initializer.gain * variance[initializer.type] ** 0.5
            return _scaled(generator, initializer.distribution, stddev, shape)
        case Orthogonal(gain=gain):
            return gain * _orthogonal(generator, shape)
        case _:
            assert_never(initializer)


def _scaled(
    generator: np.random.Generator, distribution: Distribution, stddev: float, shape: tuple[int, ...]
) -> npt.NDArray[np.float64]:
    if distribution == "uniform":
        limit = 3.0**0.5 * stddev
        return generator.uniform(-limit, limit, shape)
    if distribution == "normal":
        return generator.normal(0.0, stddev, shape)
    return _truncated(generator, stddev, shape)


def _truncated(generator: np.random.Generator, stddev: float, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Draw a normal cut at two sigma, rescaled so that ``stddev`` is the true standard deviation."""
    values = generator.normal(0.0, 1.0, shape)
    while (outside := np.abs(values) > 2.0).any():
        values[outside] = generator.normal(0.0, 1.0, int(outside.sum()))
    return values * (stddev / TRUNCATED_STDDEV)


def _orthogonal(generator: np.random.Generator, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Fold to ``(everything else, out)`` and take Q of a random matrix, signs fixed to make it uniform."""
    rows, columns = int(np.prod(shape[:-1])), shape[-1]
    matrix = generator.normal(0.0, 1.0, (max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(matrix)
    q = q * np.sign(np.diag(r))
    return (q if rows >= columns else q.T).reshape(shape)


def check_weights(graph: Graph, weights: Mapping[str, npt.NDArray[Any]]) -> list[str]:
    """Compare names and shapes with a graph's parameters; return one sentence for each difference."""
    problems = [f"'{name}' is missing" for name in graph.parameters if name not in weights]
    for name, array in weights.items():
        if name not in graph.parameters:
            problems.append(f"'{name}' is not a parameter of the model")
        elif tuple(array.shape) != graph.parameters[name].shape:
            problems.append(
                f"'{name}' has shape {list(array.shape)}, the model's is {list(graph.parameters[name].shape)}"
            )
    return problems
