"""Trainable parameters, their gradients and slots, each as one flat array, updated in parts that stay in the cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from unitrain.backends.numpy.elementwise import Elementwise
from unitrain.backends.numpy.namespace import NumpyNamespace
from unitrain.backends.numpy.registry import Array
from unitrain.backends.numpy.threads import run_together
from unitrain.backends.rule import Updater

# So many numbers of a parameter, its gradient and slots, with what an update computes between, fit into a core's cache.
PART = 1 << 15


class FlatParameters:
    """What an updater works on.

    Parameters
    ----------
    shapes
        Of the trainable parameters, by name.
    dtype
        Working precision.
    updater
        Turns gradients into new weights.

    Attributes
    ----------
    weights, gradients
        Views of the flat arrays, by parameter name.
    slots
        The same by slot and parameter name.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], dtype: npt.DTypeLike, updater: Updater) -> None:
        self._updater = updater
        self._xp = NumpyNamespace()
        alike = updater.alike(tuple(shapes))
        names = [name for group in alike for name in group] or list(shapes)
        size = sum(prod(shapes[name]) for name in names)
        self._weights, self._gradients = np.zeros(size, dtype), np.zeros(size, dtype)
        self._slots = {slot: np.zeros(size, dtype) for slot in updater.slots}
        self._ranges: dict[str, slice] = {}
        start = 0
        for name in names:
            self._ranges[name] = slice(start, start + prod(shapes[name]))
            start = self._ranges[name].stop
        self._alike = alike
        self._compiled: list[tuple[slice, Elementwise]] = []

        def views(flat: Array) -> dict[str, Array]:
            return {name: flat[self._ranges[name]].reshape(shapes[name]) for name in shapes}

        self.weights, self.gradients = views(self._weights), views(self._gradients)
        self.slots = {slot: views(flat) for slot, flat in self._slots.items()}

    def _compile(self, group: Sequence[str], scalars: int) -> tuple[slice, Elementwise]:
        """Return where parameters that are updated alike lie, and their update as a list of calls."""
        name, slots = group[0], self._updater.slots

        def update(arrays: Mapping[str, Any], numbers: Sequence[Any]) -> dict[str, Any]:
            state = {slot: {name: arrays[slot]} for slot in slots}
            weights, gradients = {name: arrays["weights"]}, {name: arrays["gradients"]}
            new_weights, new_slots = self._updater.update(self._xp, weights, gradients, state, numbers)
            return {"weights": new_weights[name], **{slot: new_slots[slot][name] for slot in slots}}

        where = slice(self._ranges[name].start, self._ranges[group[-1]].stop)
        return where, Elementwise(update, ("weights", "gradients", *slots), scalars)

    def adopt(self, weights: dict[str, Array]) -> None:
        """Take over weights by name, and put the views of the flat array in their place."""
        for name, view in self.weights.items():
            if weights[name] is not view:
                view[...] = weights[name]
                weights[name] = view

    def update(self, coefficients: npt.NDArray[np.float64], threads: int) -> None:
        """Update all weights and slots by the gradients, on at most so many threads."""
        scalars = list(coefficients.astype(self._weights.dtype))
        if self._alike and not self._compiled:
            try:
                self._compiled = [self._compile(group, len(scalars)) for group in self._alike]
            except (AttributeError, TypeError):  # it does more than operators and ufuncs
                self._alike = ()
        if not self._alike:
            self._update_together(scalars)
        for where, update in self._compiled:
            arrays = [flat[where] for flat in (self._weights, self._gradients, *self._slots.values())]
            # A thread costs about what one part does.
            shares = max(min(threads, len(arrays[0]) // (2 * PART)), 1)
            length = -(-len(arrays[0]) // shares)
            shared = [[array[first : first + length] for array in arrays] for first in range(0, len(arrays[0]), length)]
            run_together([partial(update.run, share, scalars, PART) for share in shared])

    def _update_together(self, scalars: Sequence[Any]) -> None:
        new_weights, new_slots = self._updater.update(self._xp, self.weights, self.gradients, self.slots, scalars)
        for name, array in self.weights.items():
            array[...] = new_weights[name]
            for slot, arrays in self.slots.items():
                arrays[name][...] = new_slots[slot][name]
