"""Which channels of a graph stand and fall together.

Every axis of every tensor and parameter is a vector of channel numbers. A layer that makes channels (a convolution's
filters) numbers new ones; one that passes them on hands the vector on, sliced, repeated or beside others; one that
joins its inputs element by element joins their numbers (Fang et al. 2023, DepGraph). What is left is sets of positions
along axes that can be removed only together. 0 is the number of what is no channel: rows, columns, steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from unitrain.graph.graph import Graph
from unitrain.graph.node import Node
from unitrain.spec.layers.base import LayerSpec, Shape

Numbers: TypeAlias = npt.NDArray[np.int64]
# One vector for each axis, batch left out.
Axes: TypeAlias = tuple[Numbers, ...]

NO_CHANNEL = 0


class Channels:
    """Numbers for channels, which of them are joined, and which have to stay (a union-find forest)."""

    def __init__(self) -> None:
        self._parents = [NO_CHANNEL]
        self._reasons: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._parents)

    def new(self, size: int) -> Numbers:
        """Number ``size`` new channels."""
        first = len(self._parents)
        self._parents.extend(range(first, first + size))
        return np.arange(first, first + size, dtype=np.int64)

    def root(self, number: int) -> int:
        """Return the number that stands for all that are joined with ``number``."""
        parents = self._parents
        while parents[number] != number:
            parents[number] = parents[parents[number]]
            number = parents[number]
        return number

    def roots(self, numbers: Numbers) -> Numbers:
        """Return the roots of many, in their shape."""
        unique, places = np.unique(numbers, return_inverse=True)
        return np.array([self.root(int(one)) for one in unique], dtype=np.int64)[places].reshape(numbers.shape)

    def join(self, first: Numbers, second: Numbers, where: str) -> None:
        """Join two vectors element by element; what is joined with no channel has to stay, because of ``where``."""
        if first is second or np.array_equal(first, second):
            return
        for pair in zip(first.ravel().tolist(), second.ravel().tolist(), strict=True):
            one, other = map(self.root, pair)
            if one == other:
                continue
            if NO_CHANNEL in (one, other):
                self._reasons.setdefault(max(one, other), where)
                continue
            self._parents[other] = one
            reason = self._reasons.pop(other, None)
            if reason is not None:
                self._reasons.setdefault(one, reason)

    def keep(self, numbers: Numbers, reason: str) -> None:
        """Say that channels have to stay, and why."""
        for number in np.unique(numbers):
            root = self.root(int(number))
            if root != NO_CHANNEL:
                self._reasons.setdefault(root, reason)

    def reason(self, number: int) -> str | None:
        """Return why a channel has to stay, None where it may go."""
        return self._reasons.get(self.root(number))


def no_channels(*shape: int) -> Axes:
    """Return axes of a shape in which nothing is a channel."""
    return tuple(np.full(extent, NO_CHANNEL, dtype=np.int64) for extent in shape)


@dataclass(frozen=True)
class Traced:
    """What channels are to one node.

    Parameters
    ----------
    output
        Those of its result.
    parameters
        Those of its parameters, by local name.
    fields
        Fields of the layer that count channels: the new value is how many of the vector stay. A tuple of vectors is a
        field with several numbers.
    settings
        Fields that have to be written out when channels go, with their values.
    counted
        Axes that the layer counts positions of, beside those above: by them its fields have to be written out too.
    layer
        What stands in the place of the layer when channels go, where that is another.
    """

    output: Axes
    parameters: Mapping[str, Axes] = field(default_factory=dict)
    fields: Mapping[str, Numbers | Axes] = field(default_factory=dict)
    settings: Mapping[str, object] = field(default_factory=dict)
    counted: Axes = ()
    layer: LayerSpec | None = None


Rule: TypeAlias = Callable[[Channels, Node, Sequence[Axes]], Traced]


@dataclass(frozen=True)
class Dependencies:
    """The channels of a whole graph: of each node, and of each parameter by canonical name."""

    channels: Channels
    nodes: Mapping[str, Traced]
    parameters: Mapping[str, Axes]
    makers: Mapping[int, str]
    """The node that numbered a channel, by the channel's number."""


def trace(graph: Graph, rule_of: Callable[[Node], Rule]) -> Dependencies:
    """Number the channels of a graph and join those that depend on one another."""
    channels = Channels()
    tensors: dict[str, Axes] = {name: no_channels(*spec.shape) for name, spec in graph.inputs.items()}
    traced: dict[str, Traced] = {}
    parameters: dict[str, Axes] = {}
    makers: dict[int, str] = {}
    for node in graph.nodes:
        known = len(channels)
        found = rule_of(node)(channels, node, [tensors[name] for name in node.inputs])
        makers.update(dict.fromkeys(range(known, len(channels)), node.name))
        traced[node.name], tensors[node.name] = found, found.output
        for local, name in node.parameters.items():
            axes = found.parameters[local]
            for before, new in zip(parameters.setdefault(name, axes), axes, strict=True):
                channels.join(before, new, f"'{node.name}' shares {name}")
    for output, name in graph.outputs.items():
        for axis in tensors[name]:
            channels.keep(axis, f"they are the output '{output}'")
    return Dependencies(channels, traced, parameters, makers)


def reshaped(channels: Channels, axes: Axes, shape: Shape, where: str) -> Axes:
    """Follow axes through a reshape: runs of them that are merged, split, or both."""
    result: list[Numbers] = []
    extents = [len(axis) for axis in axes]
    taken = given = 0
    while taken < len(extents) or given < len(shape):
        first, start = taken, given
        taken, given = min(taken + 1, len(extents)), min(given + 1, len(shape))
        while prod(extents[first:taken]) != prod(shape[start:given]):
            if prod(extents[first:taken]) < prod(shape[start:given]):
                taken += 1
            else:
                given += 1
        result += _split(channels, _merged(channels, axes[first:taken], where), tuple(shape[start:given]))
    return tuple(result)


def _merged(channels: Channels, axes: Axes, where: str) -> Numbers:
    """Lay axes one behind the other, the last fastest; channels of one axis alone can be told apart in the result."""
    chosen = next((place for place in reversed(range(len(axes))) if axes[place].any()), None)
    shape = tuple(len(axis) for axis in axes)
    if chosen is None:
        return np.full(prod(shape), NO_CHANNEL, dtype=np.int64)
    for place, axis in enumerate(axes):
        if place != chosen:
            channels.keep(axis, where)
    view = axes[chosen].reshape([-1 if place == chosen else 1 for place in range(len(axes))])
    return np.broadcast_to(view, shape).ravel()


def _split(channels: Channels, numbers: Numbers, shape: Shape) -> Axes:
    """Cut an axis into several: the channels are those of the one along which they differ, else of the last."""
    if not shape:
        # An axis of 1 that is left out.
        channels.keep(numbers, "they are cut out of their axis")
        return ()
    if len(shape) == 1:
        return (numbers,)
    if not numbers.any():
        return no_channels(*shape)
    table = channels.roots(numbers).reshape(shape)
    axes = list(no_channels(*shape))
    for place in reversed(range(len(shape))):
        profile = _along(table, place)
        if (table == profile).all():
            axes[place] = profile.ravel()
            return tuple(axes)
    last = _along(table, len(shape) - 1)
    channels.join(np.broadcast_to(last, shape), table, "they are cut into positions")
    axes[-1] = last.ravel()
    return tuple(axes)


def _along(table: Numbers, place: int) -> Numbers:
    """Return what stands along one axis at the beginning of all others, with axes of 1 for them."""
    return table[tuple(slice(None) if axis == place else slice(0, 1) for axis in range(table.ndim))]
