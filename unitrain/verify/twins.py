"""A second right way to compute normalisation, as frameworks do it: what it loses is rounding too, and no fault.

NumPy subtracts the mean first, and adds in pairs. Frameworks fold the mean in: with r = 1 / sqrt(var + eps) they
compute x * r + (-mean * r), in the backward pass sums of dy * x instead of dy * xhat, and add one number after the
other. Where a mean is large beside the spread, down to a single number whose spread is 0, that loses digits which NumPy
keeps. A float32 run of these formulas is therefore a yardstick.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from unitrain.backends.contract import Arrays, Plan, Program, Settings, Statistics, TrainingRule
from unitrain.backends.numpy import BACKEND
from unitrain.backends.numpy.registry import IMPLEMENTATIONS, Array, Context, Forward, Gradients, Parameters, Result
from unitrain.graph.graph import Graph
from unitrain.spec.layers import BatchNorm, GroupNorm, LayerNorm, LayerSpec


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
    y = xhat if scale is None else xhat * scale
    y = y + parameters["bias"] if "bias" in parameters else y
    lead = tuple(range(x.ndim - (1 if scale is None else scale.ndim)))

    def backward(dy: Array) -> Gradients:
        gradients = {}
        if scale is not None:
            by_x = _fused(dy.reshape(view), shaped, -(dy.reshape(view) * mean)) * inverse
            gradients["scale"] = _sum(by_x.reshape(x.shape), lead).reshape(scale.shape)
        if "bias" in parameters:
            bias = parameters["bias"]
            gradients["bias"] = _sum(dy, tuple(range(x.ndim - bias.ndim))).reshape(bias.shape)
        g = (dy if scale is None else dy * scale).reshape(view)
        # Two of the three products round first, which two differs by layer.
        root = np.broadcast_to(inverse, view).reshape(x.shape)
        if isinstance(layer, GroupNorm):
            dx = (dy * (root if scale is None else root * scale)).reshape(view)
        else:
            dx = ((dy * root) if scale is None else (dy * root) * scale).reshape(view)
        if not constant:
            count = _count(shaped, axes)
            sum_g, sum_gx = _sum(g, axes), _sum(g * shaped, axes)
            slope = _fused(sum_g, mean, -sum_gx) * inverse**3 / count
            rest = _fused(-slope, mean, -sum_g * inverse / count)
            dx = _fused(slope, shaped, dx) + rest
        return (dx.reshape(x.shape),), gradients

    return y, backward


def _count(x: Array, axes: tuple[int, ...]) -> Any:
    return x.dtype.type(np.prod([x.shape[axis] for axis in axes]))


def _sum(x: Array, axes: tuple[int, ...]) -> Array:
    """Add one number after the other, where NumPy's own sum adds in pairs; keeps the axes."""
    if not axes:
        return x
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    rows = x.transpose(*axes, *kept).reshape(-1, *(x.shape[axis] for axis in kept))
    total = np.cumsum(rows, axis=0, dtype=x.dtype)[-1]
    return total.reshape([1 if axis in axes else x.shape[axis] for axis in range(x.ndim)])


def _fused(x: Array, y: Array, z: Array) -> Array:
    """Return x * y + z with one rounding, as processors' multiply-add has it: float64 holds the product exactly."""
    wide: Array = x.astype(np.float64) * y + z
    return np.asarray(wide.astype(x.dtype))


def _batch_norm(layer: BatchNorm, context: Context, parameters: Parameters, x: Array) -> Result:
    axes = tuple(range(x.ndim - 1))
    if not context.training:
        mean, variance = parameters["running_mean"], parameters["running_variance"]
        return _result(layer, parameters, x, x.shape, axes, mean, variance, constant=True)
    result, mean, variance = _folded(layer, parameters, x, axes, x.shape)
    for name, value in (("running_mean", mean), ("running_variance", variance)):
        context.update(name, layer.momentum * parameters[name] + (1 - layer.momentum) * value.reshape(-1))
    return result


def _layer_norm(layer: LayerNorm, context: Context, parameters: Parameters, x: Array) -> Result:
    return _folded(layer, parameters, x, tuple(range(x.ndim - layer.axes, x.ndim)), x.shape)[0]


def _group_norm(layer: GroupNorm, context: Context, parameters: Parameters, x: Array) -> Result:
    positions = x[0].size // x.shape[-1]
    view = (len(x), positions, layer.groups, x.shape[-1] // layer.groups)
    return _folded(layer, parameters, x, (1, 3), view)[0]


TWINS: dict[type[LayerSpec], Forward] = {BatchNorm: _batch_norm, LayerNorm: _layer_norm, GroupNorm: _group_norm}


@contextmanager
def twins() -> Iterator[None]:
    """Let NumPy compute with the second formulas for a while."""
    first = {layer: IMPLEMENTATIONS[layer] for layer in TWINS}
    IMPLEMENTATIONS.update(TWINS)
    try:
        yield
    finally:
        IMPLEMENTATIONS.update(first)


class TwinBackend:
    """NumPy with the second formulas."""

    name = "numpy"
    trains = True
    precisions = BACKEND.precisions

    def devices(self) -> list[str]:
        """List the devices: the CPU."""
        return BACKEND.devices()

    def layer_types(self) -> frozenset[str]:
        """List the layers: all."""
        return BACKEND.layer_types()

    def build(self, graph: Graph, weights: Arrays, settings: Settings) -> Any:
        """Build NumPy's model, which computes by the first formulas."""
        return BACKEND.build(graph, weights, settings)

    def compile(self, graph: Graph, weights: Arrays, settings: Settings, rule: TrainingRule | None = None) -> Program:
        """Compile a program that computes by the second formulas."""
        return TwinProgram(BACKEND.compile(graph, weights, settings, rule))


class TwinProgram:
    """A NumPy program whose every pass goes by the second formulas."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self.graph = program.graph

    def weights(self) -> dict[str, npt.NDArray[Any]]:
        """As the program's own."""
        return self._program.weights()

    def load_weights(self, weights: Arrays) -> None:
        """As the program's own."""
        self._program.load_weights(weights)

    def slots(self) -> dict[str, dict[str, npt.NDArray[Any]]]:
        """As the program's own."""
        return self._program.slots()

    def load_slots(self, slots: Mapping[str, Arrays]) -> None:
        """As the program's own."""
        self._program.load_slots(slots)

    def place(self, data: Any) -> Any:
        """As the program's own."""
        return self._program.place(data)

    def run_steps(self, placed: Any, plan: Plan) -> Statistics:
        """Train."""
        with twins():
            return self._program.run_steps(placed, plan)

    def predict(self, inputs: Arrays, batch_size: int = 256) -> dict[str, npt.NDArray[Any]]:
        """Run inference."""
        with twins():
            return self._program.predict(inputs, batch_size)

    def activations(self, inputs: Arrays, *, training: bool = False, step: int = 0) -> dict[str, npt.NDArray[Any]]:
        """Return the output of every node."""
        with twins():
            return self._program.activations(inputs, training=training, step=step)

    def differentiate(
        self, inputs: Arrays, output_gradients: Arrays, *, training: bool = True, step: int = 0
    ) -> tuple[dict[str, npt.NDArray[Any]], dict[str, npt.NDArray[Any]], dict[str, npt.NDArray[Any]]]:
        """Return outputs and gradients."""
        with twins():
            return self._program.differentiate(inputs, output_gradients, training=training, step=step)
