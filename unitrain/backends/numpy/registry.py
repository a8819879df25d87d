"""The table of layer implementations, and what each is told beside its inputs.

A layer is one function ``forward(layer, context, parameters, *inputs) -> (output, backward)``. What the
backward pass needs stands in the closure ``backward(dy) -> (input gradients, parameter gradients)``. Arrays
have the batch first; parameters go by their local names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from unitrain.backends.numpy.memory import Workspace
from unitrain.graph.node import Node
from unitrain.spec.layers.base import LayerSpec

Array = npt.NDArray[Any]
Parameters = Mapping[str, Array]
# Gradients by the inputs, None where nobody wants one; and by the parameters, by local name.
Gradients = tuple[tuple[Array | None, ...], dict[str, Array]]
# A backward may keep and return ``dy``, but never writes into it: others may hold it too.
Backward = Callable[[Array], Gradients]
Result = tuple[Array, Backward]
Forward = Callable[..., Result]


def _as_it_is(values: Array) -> None:
    """Leave values alone."""


@dataclass(frozen=True)
class Context:
    """What a layer may know of the run it is part of.

    Parameters
    ----------
    node
        The node that is computed.
    training
        Whether dropout drops and batch norm uses the batch's statistics.
    seed, step
        Key the dropout masks.
    wanted
        For each input, whether somebody will read its gradient.
    updates
        Canonical name to new value, for parameters that change by the forward pass.
    first, samples
        Where the batch that is computed here begins in the step's whole batch, and that one's size; None where it
        is whole. Dropout masks are drawn for the whole.
    workspace
        Memory to use again in the next step; None makes all arrays anew.
    kept
        Called with numbers that a layer keeps for a difference on its way back: y of 1 - y or 1 - y^2, the sum of a
        softmax. A yardstick of rounding moves them where they lie, and nobody else does anything.
    """

    node: Node
    training: bool
    seed: int
    step: int
    wanted: tuple[bool, ...]
    updates: dict[str, Array]
    first: int = 0
    samples: int | None = None
    workspace: Workspace | None = None
    kept: Callable[[Array], object] = _as_it_is

    def empty(self, label: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """Return memory for a result of this node: any content, this step's alone."""
        if self.workspace is None:
            return np.empty(shape, dtype)
        return self.workspace.empty((self.node.name, label), shape, dtype)

    def zeros(self, label: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """Return zeros for a result of this node, of which the same part is written in each step."""
        if self.workspace is None:
            return np.zeros(shape, dtype)
        return self.workspace.zeros((self.node.name, label), shape, dtype)

    def zeros_like(self, label: str, like: Array) -> Array:
        """Return `zeros` in the shape and memory order of ``like``."""
        order = sorted(range(like.ndim), key=lambda axis: -like.strides[axis])
        zeros = self.zeros(label, tuple(like.shape[axis] for axis in order), like.dtype)
        return zeros.transpose(np.argsort(order))

    def update(self, local: str, value: Array) -> None:
        """Give a running statistic its new value; it is taken over when the step is."""
        self.updates[self.node.parameters[local]] = value


IMPLEMENTATIONS: dict[type[LayerSpec], Forward] = {}
"""Layer specification to its forward function, filled by `implements`."""

_Forward = TypeVar("_Forward", bound=Forward)


def implements(*layers: type[LayerSpec]) -> Callable[[_Forward], _Forward]:
    """Register the decorated forward function for one or more layer specifications."""

    def register(forward: _Forward) -> _Forward:
        for layer in layers:
            IMPLEMENTATIONS[layer] = forward
        return forward

    return register
