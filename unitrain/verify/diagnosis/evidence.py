"""What a backend computed for one layer by itself, and whether another meaning of the layer explains it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from unitrain.backends.contract import Precision
from unitrain.backends.numpy.registry import IMPLEMENTATIONS, Backward, Context, Forward, Gradients, Parameters, Result
from unitrain.graph.node import Node
from unitrain.spec.layers.base import LayerSpec, ShapeError
from unitrain.verify.verdict import Verdict, judge

Array = npt.NDArray[Any]

STATISTICS = "change of "


@dataclass(frozen=True)
class Variant:
    """Another meaning of a layer: what it is, in words, and how it computes."""

    text: str
    forward: Forward


Variants = Iterator[Variant]


@dataclass(frozen=True)
class Task:
    """What a layer is given in one mode: its inputs ``[batch, ...]`` and the gradient by its output."""

    inputs: tuple[Array, ...]
    upstream: Array | None
    training: bool


@dataclass
class Evidence:
    """What a backend made of one layer.

    Parameters
    ----------
    node
        The layer; its parameters' canonical names are of no account.
    parameters
        Their values by local name, float32.
    tasks
        What it was given, by mode.
    found
        What came out, by mode and tensor: ``output``, ``gradient by input 2``, ``gradient by kernel``,
        ``change of running_mean``.
    growth
        As in `judge`, by mode and tensor.
    seed, step
        Key the dropout masks.
    precision
        What the backend computed in.
    """

    node: Node
    parameters: Mapping[str, Array]
    tasks: Mapping[str, Task]
    found: Mapping[tuple[str, str], Array]
    growth: Mapping[tuple[str, str], float] = field(default_factory=dict)
    seed: int = 0
    step: int = 0
    precision: Precision | None = None
    _right: dict[tuple[str, str], Array] | None = field(init=False, default=None)

    @property
    def layer(self) -> LayerSpec:
        """The layer's specification."""
        return self.node.layer

    @property
    def right(self) -> dict[tuple[str, str], Array]:
        """What the reference computes, in float64."""
        if self._right is None:
            self._right = self.compute(IMPLEMENTATIONS[type(self.layer)], np.float64)
        return self._right

    @property
    def failing(self) -> list[tuple[str, str]]:
        """The tensors that are not the reference's."""
        narrow = self.compute(IMPLEMENTATIONS[type(self.layer)], np.float32)
        return [key for key in self.found if key in self.right and not self._judge(key, self.right, narrow).passed]

    def compute(self, forward: Forward, dtype: Any) -> dict[tuple[str, str], Array]:
        """Return all tensors under a meaning of the layer, in ``dtype``; gradients it does not give are left out."""
        results: dict[tuple[str, str], Array] = {}
        for mode, task in self.tasks.items():
            inputs = [array.astype(dtype) if array.dtype.kind == "f" else array for array in task.inputs]
            parameters = {name: array.astype(dtype) for name, array in self.parameters.items()}
            own = {local: local for local in self.node.parameters}
            node = replace(self.node, parameters=own)
            wanted = tuple(array.dtype.kind == "f" for array in inputs)
            context = Context(node, task.training, self.seed, self.step, wanted, {})
            with np.errstate(all="ignore"):
                output, backward = forward(self.layer, context, parameters, *inputs)
                results[mode, "output"] = output
                for name, value in context.updates.items():
                    results[mode, f"{STATISTICS}{name}"] = value - parameters[name]
                if task.upstream is not None:
                    self._differentiate(results, mode, backward, task.upstream.astype(dtype))
        return results

    def _differentiate(
        self, results: dict[tuple[str, str], Array], mode: str, backward: Backward, upstream: Array
    ) -> None:
        by_input, by_parameter = backward(upstream)
        for position, gradient in enumerate(by_input, start=1):
            if gradient is not None:
                label = "gradient by input" if len(by_input) == 1 else f"gradient by input {position}"
                results[mode, label] = gradient
        for name, gradient in by_parameter.items():
            results[mode, f"gradient by {name}"] = gradient

    def matches(self, forward: Forward) -> bool:
        """Tell whether a meaning of the layer explains every tensor that was found."""
        try:
            wide, narrow = self.compute(forward, np.float64), self.compute(forward, np.float32)
        except (ShapeError, ValueError, IndexError, KeyError, ZeroDivisionError, TypeError):
            return False  # this meaning does not fit these shapes
        known = [key for key in self.found if key in wide]
        return bool(known) and all(self._judge(key, wide, narrow).passed for key in known)

    def error(self, forward: Forward) -> float:
        """Return the distance of what was found from a meaning of the layer, over that from the right one."""
        try:
            wide = self.compute(forward, np.float64)
        except (ShapeError, ValueError, IndexError, KeyError, ZeroDivisionError, TypeError):
            return np.inf
        total = 0.0
        for key in self.failing:
            if key in wide and wide[key].shape == self.found[key].shape:
                size = np.sqrt(np.mean(np.square(self.right[key]))) or 1.0
                total += float(np.mean(np.square((self.found[key] - wide[key]) / size)))
        return total

    def _judge(
        self, key: tuple[str, str], wide: Mapping[tuple[str, str], Array], narrow: Mapping[Any, Array]
    ) -> Verdict:
        growth = self.growth.get(key, 1.0)
        return judge(self.found[key], wide[key], narrow[key], growth=growth, precision=self.precision)


def keeps_shape(evidence: Evidence, changed: LayerSpec) -> bool:
    """Tell whether a changed layer gives a result of the same shape."""
    try:
        return changed.output_shape(*evidence.node.input_shapes) == evidence.node.output_shape
    except (ShapeError, ValueError, IndexError):
        return False


def with_fields(layer: LayerSpec) -> Forward:
    """Return the meaning of a layer with other fields."""
    return partial(_with_fields, layer)


def _with_fields(layer: LayerSpec, _: LayerSpec, context: Context, parameters: Parameters, *inputs: Array) -> Result:
    shape = layer.output_shape(*context.node.input_shapes)
    node = replace(context.node, layer=layer, output_shape=shape)
    return IMPLEMENTATIONS[type(layer)](layer, replace(context, node=node), parameters, *inputs)


def chain(*layers: LayerSpec) -> Forward:
    """Return the meaning of several layers in a row, of which one has the parameters."""
    return partial(_chain, layers)


def _chain(layers: tuple[LayerSpec, ...], _: LayerSpec, context: Context, parameters: Parameters, x: Array) -> Result:
    backwards: list[Backward] = []
    shape = context.node.input_shapes[0]
    for layer in layers:
        node = replace(context.node, layer=layer, input_shapes=(shape,), output_shape=layer.output_shape(shape))
        x, back = IMPLEMENTATIONS[type(layer)](layer, replace(context, node=node), parameters, x)
        shape = node.output_shape
        backwards.append(back)

    def backward(dy: Array) -> Gradients:
        gradients: dict[str, Array] = {}
        for back in reversed(backwards):
            (dx,), found = back(dy)
            gradients |= found
            dy = dx if dx is not None else np.zeros_like(dy)
        return (dy,), gradients

    return x, backward


def with_parameters(change: Callable[[dict[str, Array]], dict[str, Array]]) -> Forward:
    """Return the meaning of a layer that reads its parameters in another layout; their gradients are left out."""
    return partial(_with_parameters, change)


def _with_parameters(
    change: Callable[[dict[str, Array]], dict[str, Array]],
    layer: LayerSpec,
    context: Context,
    parameters: Parameters,
    *inputs: Array,
) -> Result:
    changed = change(dict(parameters))
    y, back = IMPLEMENTATIONS[type(layer)](layer, context, changed, *inputs)

    def backward(dy: Array) -> Gradients:
        by_input, by_parameter = back(dy)
        return by_input, {name: array for name, array in by_parameter.items() if changed[name] is parameters[name]}

    return y, backward
