"""Finds the spec's layers in the user's model: for each, the tensors before and behind it.

A layer stands where a section of the recorded pass, given what the reference gives that layer, computes what the
reference computes. Layers with parameters are found by them even where they compute something else. What cannot be
found alone is sought together with the layers behind it, since a port may do two things in another order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from unitrain.backends.foreign import Foreign, Operation, Trace
from unitrain.graph.graph import Graph
from unitrain.graph.node import Node
from unitrain.spec.layers.recurrent import RecurrentLayer
from unitrain.verify.against.layouts import Layout, layouts
from unitrain.verify.against.sections import Expected
from unitrain.verify.against.weights import Bindings
from unitrain.verify.growth import inherited_growth, layer_growth
from unitrain.verify.verdict import judge

Array = npt.NDArray[Any]

# Layers that move elements and compute nothing.
_MOVING = ("flatten", "reshape", "permute")
# At most so many layers are sought together, and so many tensors tried for one at a time.
TOGETHER, TRIED = 5, 24


@dataclass(frozen=True)
class Place:
    """Where a layer's result is in the user's model: the number of a tensor, and how it lies."""

    number: int
    layout: Layout


@dataclass(frozen=True)
class Aligned:
    """A section of the spec and of the user's model that belong together.

    Parameters
    ----------
    nodes
        The layers, one unless they could be found together only.
    feeds
        Where each input of the section is.
    place
        Where its result is.
    right
        Whether it computes what the reference computes.
    """

    nodes: tuple[Node, ...]
    feeds: Mapping[str, Place]
    place: Place
    right: bool


@dataclass(frozen=True)
class Fault:
    """A difference in how the models are put together, at a layer."""

    part: str
    text: str


@dataclass
class Alignment:
    """The search, for one mode.

    Parameters
    ----------
    expected
        What the reference computes.
    foreign, trace, bindings
        The user's model.
    inputs
        Where the spec's inputs are.
    first
        Whether images in the user's model have the channel first.
    """

    expected: Expected
    foreign: Foreign
    trace: Trace
    bindings: Bindings
    inputs: Mapping[str, Place]
    first: bool
    places: dict[str, Place] = field(init=False)
    sections: list[Aligned] = field(init=False, default_factory=list)
    faults: list[Fault] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.places = dict(self.inputs)
        self.graph: Graph = self.expected.graph
        self._makers = {number: operation for operation in self.trace.operations for number in operation.outputs}
        self._owned = {
            theirs: name.rpartition(".")[0] for name, binding in self.bindings.items() for theirs in binding.names
        }
        self._uses, self._data = self._dependences(frozenset(self.trace.inputs))

    def _dependences(self, starts: frozenset[int]) -> tuple[dict[int, frozenset[str]], set[int]]:
        """Return which bound parameters each tensor depends on, and which tensors depend on ``starts``."""
        uses: dict[int, frozenset[str]] = {}
        data = set(starts)
        for operation in self.trace.operations:
            found = frozenset(name for name in operation.parameters if name in self._owned)
            found = found.union(*(uses.get(number, frozenset()) for number in operation.inputs))
            for number in operation.outputs:
                uses[number] = found
                if not data.isdisjoint(operation.inputs):
                    data.add(number)
        return uses, data

    def run(self) -> Alignment:
        """Place all layers that can be placed."""
        done: set[str] = set()
        for position, node in enumerate(self.graph.nodes):
            if node.name in done or any(name not in self.places for name in node.inputs):
                continue
            for chain in self._chains(position):
                found = self._find(chain, self.places)
                if found is not None:
                    break
            else:
                found = self._odd(node)
            if found is None:
                continue
            self.sections.append(found)
            done |= {item.name for item in found.nodes}
            self.places[found.nodes[-1].name] = found.place
        return self

    def _chains(self, position: int) -> list[tuple[Node, ...]]:
        """Return a node alone, and with those behind it as long as each is all that reads the one before.

        A layer with weights is sought alone where its result can be told apart: together with others its mistakes
        could hide, behind a saturated activation for one.
        """
        chain = [self.graph.nodes[position]]
        chains = [tuple(chain)]
        weighted = bool(chain[0].parameters)
        if weighted and self._reached(chain, {name: self.places[name] for name in chain[0].inputs}):
            return chains
        results = set(self.graph.outputs.values())
        while len(chain) < TOGETHER:
            last = chain[-1].name
            readers = [node for node in self.graph.nodes if last in node.inputs]
            if len(readers) != 1 or last in results or (readers[0].parameters and not weighted):
                break
            if any(name != last and name not in self.places for name in readers[0].inputs):
                break
            chain.append(readers[0])
            chains.append(tuple(chain))
        return chains

    # --- looking for a section -------------------------------------------------------------------------------------

    def _find(
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

    def _tried(self, nodes: Sequence[Node], feeds: Mapping[str, Place]) -> dict[int, Array]:
        """Return the first tries; of recurrent layers all, whose steps may each be seen."""
        tries = list(self._tries(nodes, feeds)) if isinstance(nodes[0].layer, RecurrentLayer) else []
        return {n: value for tried in tries for n, value in tried.items()} or next(self._tries(nodes, feeds), {})

    def _tries(self, nodes: Sequence[Node], feeds: Mapping[str, Place]) -> Iterator[dict[int, Array]]:
        """Yield what their model makes of the reference's inputs: the tensors that may be the layers' result."""
        numbers = self._reached(nodes, feeds)
        if any(node.layer.type == "flatten" for node in nodes):
            # Whoever flattens has one axis then; what has more is not flattened yet.
            numbers = [number for number in numbers if len(self.trace.shapes[number]) == 2] or numbers
        given = {place.number: place.layout.to_theirs(self.expected.given[name]) for name, place in feeds.items()}
        for start in range(0, len(numbers), TRIED):
            yield dict(self.foreign.run(self.trace, given, numbers[start : start + TRIED]).values)

    def _reached(self, nodes: Sequence[Node], feeds: Mapping[str, Place]) -> list[int]:
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
        reached = [] if wanted else [number for number in known if self._size(number) == size]
        for operation in self.trace.operations:
            if any(self._owned.get(name, "") not in owners for name in operation.parameters if name in self._owned):
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
                if wanted <= uses and self._size(number) == size:
                    reached.append(number)
        return reached

    def _size(self, number: int) -> int:
        shape = self.trace.shapes[number]
        return prod(shape[1:]) if shape and shape[0] == self._batch else -1

    @property
    def _batch(self) -> int:
        return len(next(iter(self.expected.inputs.values())))

    def _layouts(self, node: Node, feeds: Mapping[str, Place], shape: tuple[int, ...]) -> list[Layout]:
        inherited = list(dict.fromkeys(place.layout for place in feeds.values()))
        if node.layer.type == "reshape":
            inherited.append(Layout.channels_first(node.output_shape))
        return layouts(node.output_shape, shape[1:], inherited, self.first)

    def _right(self, nodes: Sequence[Node], feeds: Mapping[str, Place], value: Array) -> Layout | None:
        """Return the layout in which a tensor is what the reference computes; None where it is in none."""
        node = nodes[-1]
        right, *yardsticks = [computed.values[node.name] for computed in self.expected.section(nodes)]
        growth = self.growth(nodes)
        for layout in self._layouts(node, feeds, value.shape):
            ours = layout.to_ours(value, node.output_shape)
            if node.dtype != "float":
                ours = ours.astype(np.int64)
            if judge(ours, right, *yardsticks, growth=growth).passed:
                return layout
        return None

    def growth(self, nodes: Sequence[Node]) -> float:
        """Return the growth of a section's result, as `judge` takes it."""
        training = self.expected.training
        return max(layer_growth(node, self._batch, training) for node in nodes)

    def _error(self, node: Node, value: Array, layout: Layout) -> float:
        right = self.expected.section([node])[0].values[node.name]
        found = layout.to_ours(value, node.output_shape)
        with np.errstate(all="ignore"):
            error = float(np.sqrt(np.mean(np.square(found - right))))
        return error if np.isfinite(error) else np.inf

    # --- what is not as it should be -------------------------------------------------------------------------------

    def _odd(self, node: Node) -> Aligned | None:
        """Place a layer that computes something else than the reference, as well as can be."""
        names = [name for name in node.parameters.values() if name in self.bindings]
        return self._odd_weights(node, names) if names else self._odd_plain(node)

    def _odd_weights(self, node: Node, names: Sequence[str]) -> Aligned | None:
        feeds = {name: self.places[name] for name in node.inputs}
        wanted = {self.bindings[name].theirs.name for name in names if self.graph.parameters[name].trainable}
        wanted = wanted or {self.bindings[name].theirs.name for name in names}
        entry = self._entry(wanted, prod(self.graph.shape(node.inputs[0])))
        source = node.inputs[0]
        if entry is not None and entry not in {place.number for place in feeds.values()}:
            between = self._between(feeds[source].number, entry)
            for layout in self._source_layouts(source, feeds[source], entry):
                other = {source: Place(entry, layout)}
                found = self._find([node], self.places, other)
                if found is not None:
                    self.faults.append(Fault(node.name, self._reads(node, entry, between)))
                    return found
        best = self._nearest(node, feeds)
        if best is not None:
            return best
        options = [] if entry is None else [Place(entry, x) for x in self._source_layouts(source, feeds[source], entry)]
        for place in options:
            best = self._nearest(node, {source: place})
            if best is not None:
                self.faults.append(Fault(node.name, self._reads(node, place.number, None)))
                return best
        self.faults.append(Fault(node.name, self._shapes(node, wanted)))
        return None

    def _source_layouts(self, source: str, place: Place, entry: int) -> list[Layout]:
        shape = self.trace.shapes[entry]
        return layouts(self.graph.shape(source), shape[1:], [place.layout], self.first) if shape else []

    def _entry(self, parameters: set[str], size: int) -> int | None:
        """Return the tensor of some size that the first operation with these parameters reads."""
        for operation in self.trace.operations:
            uses = {name for number in operation.outputs for name in self._uses[number]}
            if uses.isdisjoint(parameters):
                continue
            for number in operation.inputs:
                if number in self._data and self._size(number) == size:
                    return number
        return None

    def _between(self, start: int, end: int) -> list[Operation] | None:
        """Return the operations that lead from a tensor to another; None where it is not all that the other needs."""
        numbers, missing = self.trace.section([start], [end])
        return None if missing else [self.trace.operations[number] for number in numbers]

    def _reads(self, node: Node, entry: int, between: list[Operation] | None) -> str:
        others = [
            self._owned[name] for operation in between or () for name in operation.parameters if name in self._owned
        ]
        if others:
            return (
                f"right by itself, but in their model '{others[-1]}' comes before it, and in the spec "
                f"'{node.inputs[0]}'; or the weights of the two are mapped the wrong way round"
            )
        if between:
            named = _named([operation for operation in between if not self._constant(operation)])
            return f"right by itself, but their model applies {named} before it; the spec does not"
        maker = self._makers.get(entry)
        what = "the model's input" if maker is None else f"the result of {_named([maker])}"
        return f"their model gives it {what}; the spec gives it that of '{node.inputs[0]}'"

    def _constant(self, operation: Operation) -> bool:
        return self._data.isdisjoint(operation.inputs)

    def _shapes(self, node: Node, wanted: set[str]) -> str:
        for operation in self.trace.operations:
            for number in operation.outputs:
                if wanted <= self._uses[number] and number in self._data:
                    shape = list(self.trace.shapes[number])
                    return (
                        f"their result has the shape {shape}; the spec's is {list(node.output_shape)} without the batch"
                    )
        return "their model does not use its weights"

    def _odd_plain(self, node: Node) -> Aligned | None:
        """Place a layer without weights where the layer behind it is right, else where it is least wrong."""
        feeds = {name: self.places[name] for name in node.inputs}
        readers = [item for item in self.graph.nodes if node.name in item.inputs]
        values = self._tried([node], feeds)
        later = self._found_later(node, feeds, list(values))
        if later is not None:
            return later
        options = [
            place
            for number, value in values.items()
            for place in (Place(number, layout) for layout in self._layouts(node, feeds, value.shape))
            if self._leads_on(readers, {**self.places, node.name: place})
        ]
        if options:
            # Its own input leads on too where the layer behind does not mind what this one does.
            given = {place.number for place in feeds.values()}
            best = min(options, key=lambda p: (p.number in given, self._error(node, values[p.number], p.layout)))
            return Aligned((node,), feeds, best, False)
        if not readers and node.name in self.graph.outputs.values():
            results = set(self.trace.outputs.values())
            for number, value in values.items():
                if number in results:
                    for layout in self._layouts(node, feeds, value.shape)[:1]:
                        return Aligned((node,), feeds, Place(number, layout), False)
        nearest = self._nearest(node, feeds, values)
        if nearest is None:
            self.faults.append(Fault(node.name, "nothing in their model gives a result of its size"))
        return nearest

    def _found_later(self, node: Node, feeds: Mapping[str, Place], numbers: Sequence[int]) -> Aligned | None:
        """Find a layer that is right when it starts behind something that the spec has not."""
        if len(feeds) != 1:
            return None
        ((source, start),) = feeds.items()
        for number in numbers:
            if number == start.number or self.graph.shape(source) != node.output_shape:
                continue
            for layout in self._source_layouts(source, start, number):
                found = self._find([node], self.places, {source: Place(number, layout)})
                if found is not None and found.place.number != number:
                    self.faults.append(Fault(node.name, self._reads(node, number, self._between(start.number, number))))
                    return found
        return None

    def _leads_on(self, readers: Sequence[Node], places: Mapping[str, Place]) -> bool:
        """Tell whether one of the layers behind is right when it starts from these places."""
        return any(
            all(name in places for name in reader.inputs) and self._find([reader], places) is not None
            for reader in readers
        )

    def _nearest(
        self, node: Node, feeds: Mapping[str, Place], values: Mapping[int, Array] | None = None
    ) -> Aligned | None:
        """Return the tensor that is least wrong; of layers with weights the first one."""
        found = self._tried([node], feeds) if values is None else values
        first = bool(node.parameters) and not isinstance(node.layer, RecurrentLayer)
        options = [
            Place(number, layout)
            for number, value in (list(found.items())[:1] if first else found.items())
            for layout in self._layouts(node, feeds, value.shape)
        ]
        if not options:
            return None
        best = min(
            options,
            key=lambda place: (
                not self._called_alike(node, place.number),
                self._error(node, found[place.number], place.layout),
            ),
        )
        return Aligned((node,), feeds, best, False)

    def _called_alike(self, node: Node, number: int) -> bool:
        """Tell whether a tensor comes from an operation that is called like the layer."""
        maker = self._makers.get(number)
        name = "" if maker is None else maker.name.lower().replace("_", "")
        kind = node.layer.type.replace("_", "").rstrip("12d")
        return kind in name or ("pool" in kind and "pool" in name)

    # --- what comes of it ------------------------------------------------------------------------------------------

    def inherited_growth(self) -> Mapping[str, float]:
        """Return the growth of every layer's result in the whole model."""
        return inherited_growth(self.graph, self._batch, self.expected.training)

    def rows(self) -> dict[str, tuple[int, ...]]:
        """Return parameters whose rows follow the order in which the user's model flattens, and that order."""
        found: dict[str, tuple[int, ...]] = {}
        for node in self.graph.nodes:
            place = self.places.get(node.inputs[0])
            if place is None or len(self.graph.shape(node.inputs[0])) != 1 or not place.layout.moves:
                continue
            order = tuple(int(row) for row in place.layout.order())
            for local, name in node.parameters.items():
                if (local == "kernel" or node.layer.type != "dense") and name in self.bindings:
                    found[name] = order
        return found


def _named(operations: Sequence[Operation]) -> str:
    """Name operations and who does them: ``relu (features.3), add``."""
    shown = [f"{item.name} ({item.owner})" if item.owner else item.name for item in operations[:4]]
    return ", ".join(shown) + (", ..." if len(operations) > 4 else "")
