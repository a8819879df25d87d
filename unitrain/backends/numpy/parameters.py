"""Trainable parameters, their gradients and slots, each as one flat array, updated in parts that stay in the cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from unitrain.backends.contract import Arrays, Updater
from unitrain.backends.numpy.namespace import NumpyNamespace
from unitrain.backends.numpy.registry import Array
from unitrain.backends.numpy.threads import for_each

# So many numbers of a parameter, its gradient and slots, with what an update computes between, fit into a core's cache.
PART = 1 << 14


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
        self._parts = [part for group in alike for part in self._cut(group)]
        self._order = tuple(shapes)

        def views(flat: Array) -> dict[str, Array]:
            return {name: flat[self._ranges[name]].reshape(shapes[name]) for name in shapes}

        self.weights, self.gradients = views(self._weights), views(self._gradients)
        self.slots = {slot: views(flat) for slot, flat in self._slots.items()}

    def _cut(self, group: Sequence[str]) -> list[tuple[str, slice]]:
        """Cut parameters that are updated alike into parts, each named by one of them."""
        start, stop = self._ranges[group[0]].start, self._ranges[group[-1]].stop
        return [(group[0], slice(first, min(first + PART, stop))) for first in range(start, stop, PART)]

    def adopt(self, weights: dict[str, Array]) -> None:
        """Take over weights by name, and put the views of the flat array in their place."""
        for name, view in self.weights.items():
            if weights[name] is not view:
                view[...] = weights[name]
                weights[name] = view

    def update(self, coefficients: npt.NDArray[np.float64], threads: int) -> None:
        """Update all weights and slots by the gradients, on at most so many threads."""
        scalars = list(coefficients.astype(self._weights.dtype))
        if not self._parts:
            self._update_named(self.weights, self.gradients, self.slots, scalars)
            return
        # A thread costs about what one part does.
        shares = max(min(threads, len(self._parts) // 4), 1)
        if shares == 1:
            self._update_parts(self._parts, scalars)
        else:
            for_each(lambda share: self._update_parts(self._parts[share::shares], scalars), range(shares))

    def _update_parts(self, parts: Sequence[tuple[str, slice]], scalars: Sequence[Any]) -> None:
        with np.errstate(all="ignore"):
            for name, part in parts:
                slots = {slot: {name: flat[part]} for slot, flat in self._slots.items()}
                self._update_named({name: self._weights[part]}, {name: self._gradients[part]}, slots, scalars)

    def _update_named(
        self, weights: Arrays, gradients: Arrays, slots: Mapping[str, Arrays], scalars: Sequence[Any]
    ) -> None:
        new_weights, new_slots = self._updater.update(self._xp, weights, gradients, slots, scalars)
        for name, array in weights.items():
            array[...] = new_weights[name]
            for slot, arrays in slots.items():
                arrays[name][...] = new_slots[slot][name]
