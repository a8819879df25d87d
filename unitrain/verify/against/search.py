"""Looks in the user's model for the tensor that some layers of the spec compute."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from unitrain.backends.foreign import Foreign, Trace
from unitrain.graph.graph import Graph
from unitrain.graph.node import Node
from unitrain.spec.layers.recurrent import RecurrentLayer
from unitrain.verify.against.bindings import Bindings
from unitrain.verify.against.layouts import Layout, layouts
from unitrain.verify.against.places import Aligned, Place
from unitrain.verify.against.sections import Expected
from unitrain.verify.growth import layer_growth
from unitrain.verify.verdict import judge

Array = npt.NDArray[Any]

# Layers that move elements and compute nothing.
_MOVING = ("flatten", "reshape", "permute")
# At most so many tensors are tried at a time.
TRIED = 24


@dataclass
class Search:
    """What is asked of the user's model, for one mode.

    Parameters
    ----------
    expected
        What the reference computes.
    foreign, trace, bindings
        The user's model.
    first
        Whether images in the user's model have the channel first.
    """

    expected: Expected
    foreign: Foreign
    trace: Trace
    bindings: Bindings
    first: bool

    def __post_init__(self) -> None:
        self.graph: Graph = self.expected.graph
        self.owned = {
            theirs: name.rpartition(".")[0] for name, binding in self.bindings.items() for theirs in binding.names
        }

    def find(
        self, nodes: Sequence[Node], places: Mapping[str, Place], feeds: Mapping[str, Place] | None = None
    ) -> Aligned | None:
        """Return the first tensor that is what the reference computes for some layers; None where there is none."""
        own = {node.name for node in nodes}
        sources = feeds or {name: places[name] for node in nodes for name in node.inputs if name not in own}
        moving = nodes[-1].layer.type in _MOVING
        options: list[Place] = []
        for tried in self._tries(nodes, sources):
            for number, value in tried.items():
                layout = self._right(nodes, sources, value)
                if layout is not None:
                    options.append(Place(number, layout))
                    if not moving:
                        break
            if options:
                break
        if not options:
            return None
        # What is to be moved may lie as it was, in another order: where their model has moved it comes first.
        given = {place.number for place in sources.values()}
        place = min(options, key=lambda place: (place.number in given, place.layout.moves))
        return Aligned(tuple(nodes), sources, place, True)

    def tried(self, nodes: Sequence[Node], feeds: Mapping[str, Place]) -> dict[int, Array]:
        """Return the first tries; of recurrent layers all, whose steps may each be seen."""
        tries = list(self._tries(nodes, feeds)) if isinstance(nodes[0].layer, RecurrentLayer) else []
        return {n: value for tried in tries for n, value in tried.items()} or next(self._tries(nodes, feeds), {})

    def _tries(self, nodes: Sequence[Node], feeds: Mapping[str, Place]) -> Iterator[dict[int, Array]]:
        """Yield what their model makes of the reference's inputs: the tensors that may be the layers' result."""
        numbers = self.reached(nodes, feeds)
        if any(node.layer.type == "flatten" for node in nodes):
            # Whoever flattens has one axis then; what has more is not flattened yet.
            numbers = [number for number in numbers if len(self.trace.shapes[number]) == 2] or numbers
        given = {place.number: place.layout.to_theirs(self.expected.given[name]) for name, place in feeds.items()}
        for start in range(0, len(numbers), TRIED):
            yield dict(self.foreign.run(self.trace, given, numbers[start : start + TRIED]).values)

    def reached(self, nodes: Sequence[Node], feeds: Mapping[str, Place]) -> list[int]:
        """Return the tensors of the right size that are computed from ``feeds`` alone, without other layers' weights.

        They depend on all trained parameters of ``nodes``; without any, the feeds themselves come first.
        """
        size = prod(nodes[-1].output_shape)
        names = {name for node in nodes for name in node.parameters.values()}
        owners = {node.owner for node in nodes}
        wanted = {
            self.bindings[n].theirs.name for n in names if n in self.bindings and self.graph.parameters[n].trainable
        }
        known: dict[int, frozenset[str]] = {place.number: frozenset() for place in feeds.values()}
        data = set(known)
        reached = [] if wanted else [number for number in known if self.size(number) == size]
        for operation in self.trace.operations:
            if any(self.owned.get(name, "") not in owners for name in operation.parameters if name in self.owned):
                continue
            if any(number not in known for number in operation.inputs):
                continue
            uses = frozenset(operation.parameters).union(*(known[number] for number in operation.inputs))
            for number in operation.outputs:
                if number in known:
                    continue
                known[number] = uses
                if data.isdisjoint(operation.inputs):
                    continue
                data.add(number)
                if wanted <= uses and self.size(number) == size:
                    reached.append(number)
        return reached

    def size(self, number: int) -> int:
        """Return how many elements a sample of a tensor has; -1 where its first axis is no batch."""
        shape = self.trace.shapes[number]
        return prod(shape[1:]) if shape and shape[0] == self.batch else -1

    @property
    def batch(self) -> int:
        """How many samples are looked at."""
        return len(next(iter(self.expected.inputs.values())))

    def layouts_of(self, node: Node, feeds: Mapping[str, Place], shape: tuple[int, ...]) -> list[Layout]:
        """Return the layouts in which a tensor ``[batch, ...]`` may be a layer's result, the likeliest first."""
        inherited = list(dict.fromkeys(place.layout for place in feeds.values()))
        if node.layer.type == "reshape":
            inherited.append(Layout.channels_first(node.output_shape))
        return layouts(node.output_shape, shape[1:], inherited, self.first)

    def _right(self, nodes: Sequence[Node], feeds: Mapping[str, Place], value: Array) -> Layout | None:
        """Return the layout in which a tensor is what the reference computes; None where it is in none."""
        node = nodes[-1]
        right, *yardsticks = [computed.values[node.name] for computed in self.expected.section(nodes)]
        growth = self.growth(nodes)
        for layout in self.layouts_of(node, feeds, value.shape):
            ours = layout.to_ours(value, node.output_shape)
            if node.dtype != "float":
                ours = ours.astype(np.int64)
            if judge(ours, right, *yardsticks, growth=growth).passed:
                return layout
        return None

    def growth(self, nodes: Sequence[Node]) -> float:
        """Return the growth of a section's result, as `judge` takes it."""
        training = self.expected.training
        return max(layer_growth(node, self.batch, training) for node in nodes)

    def error(self, node: Node, value: Array, layout: Layout) -> float:
        """Return how far a tensor is from a layer's result: the root mean square, infinity where that is no number."""
        right = self.expected.section([node])[0].values[node.name]
        found = layout.to_ours(value, node.output_shape)
        with np.errstate(all="ignore"):
            error = float(np.sqrt(np.mean(np.square(found - right))))
        return error if np.isfinite(error) else np.inf
