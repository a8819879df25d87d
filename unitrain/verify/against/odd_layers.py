"""Layers whose result is nowhere in the user's model: where they stand nevertheless, and what is odd about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy.typing as npt

from unitrain.backends.foreign import Operation
from unitrain.graph.node import Node
from unitrain.spec.layers.recurrent import RecurrentLayer
from unitrain.verify.against.layouts import Layout, layouts
from unitrain.verify.against.places import Aligned, Fault, Place
from unitrain.verify.against.search import Search

Array = npt.NDArray[Any]


class OddLayers:
    """Places what `Search` does not find, and keeps the faults seen on the way.

    Parameters
    ----------
    search
        The search for the mode.
    places
        Where layers are, as far as known; the caller adds to it.
    """

    def __init__(self, search: Search, places: Mapping[str, Place]) -> None:
        self.search, self.places = search, places
        self.faults: list[Fault] = []
        self.graph, self._trace = search.graph, search.trace
        self._bindings, self._owned = search.bindings, search.owned
        self._makers = {number: operation for operation in search.trace.operations for number in operation.outputs}
        self._uses, self._data = self._dependences(frozenset(search.trace.inputs))

    def _dependences(self, starts: frozenset[int]) -> tuple[dict[int, frozenset[str]], set[int]]:
        """Return which bound parameters each tensor depends on, and which tensors depend on ``starts``."""
        uses: dict[int, frozenset[str]] = {}
        data = set(starts)
        for operation in self._trace.operations:
            found = frozenset(name for name in operation.parameters if name in self._owned)
            found = found.union(*(uses.get(number, frozenset()) for number in operation.inputs))
            for number in operation.outputs:
                uses[number] = found
                if not data.isdisjoint(operation.inputs):
                    data.add(number)
        return uses, data

    def place(self, node: Node) -> Aligned | None:
        """Place a layer that computes something else than the reference, as well as can be."""
        names = [name for name in node.parameters.values() if name in self._bindings]
        return self._with_weights(node, names) if names else self._without(node)

    def _with_weights(self, node: Node, names: Sequence[str]) -> Aligned | None:
        feeds = {name: self.places[name] for name in node.inputs}
        wanted = {self._bindings[name].theirs.name for name in names if self.graph.parameters[name].trainable}
        wanted = wanted or {self._bindings[name].theirs.name for name in names}
        entry = self._entry(wanted, prod(self.graph.shape(node.inputs[0])))
        source = node.inputs[0]
        if entry is not None and entry not in {place.number for place in feeds.values()}:
            between = self._between(feeds[source].number, entry)
            for layout in self._source_layouts(source, feeds[source], entry):
                other = {source: Place(entry, layout)}
                found = self.search.find([node], self.places, other)
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
        shape = self._trace.shapes[entry]
        return layouts(self.graph.shape(source), shape[1:], [place.layout], self.search.first) if shape else []

    def _entry(self, parameters: set[str], size: int) -> int | None:
        """Return the tensor of some size that the first operation with these parameters reads."""
        for operation in self._trace.operations:
            uses = {name for number in operation.outputs for name in self._uses[number]}
            if uses.isdisjoint(parameters):
                continue
            for number in operation.inputs:
                if number in self._data and self.search.size(number) == size:
                    return number
        return None

    def _between(self, start: int, end: int) -> list[Operation] | None:
        """Return the operations that lead from a tensor to another; None where it is not all that the other needs."""
        numbers, missing = self._trace.section([start], [end])
        return None if missing else [self._trace.operations[number] for number in numbers]

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
        for operation in self._trace.operations:
            for number in operation.outputs:
                if wanted <= self._uses[number] and number in self._data:
                    shape = list(self._trace.shapes[number])
                    return (
                        f"their result has the shape {shape}; the spec's is {list(node.output_shape)} without the batch"
                    )
        return "their model does not use its weights"

    def _without(self, node: Node) -> Aligned | None:
        """Place a layer without weights where the layer behind it is right, else where it is least wrong."""
        feeds = {name: self.places[name] for name in node.inputs}
        readers = [item for item in self.graph.nodes if node.name in item.inputs]
        values = self.search.tried([node], feeds)
        later = self._found_later(node, feeds, list(values))
        if later is not None:
            return later
        options = [
            place
            for number, value in values.items()
            for place in (Place(number, layout) for layout in self.search.layouts_of(node, feeds, value.shape))
            if self._leads_on(readers, {**self.places, node.name: place})
        ]
        if options:
            # Its own input leads on too where the layer behind does not mind what this one does.
            given = {place.number for place in feeds.values()}
            best = min(options, key=lambda p: (p.number in given, self.search.error(node, values[p.number], p.layout)))
            return Aligned((node,), feeds, best, False)
        if not readers and node.name in self.graph.outputs.values():
            results = set(self._trace.outputs.values())
            for number, value in values.items():
                if number in results:
                    for layout in self.search.layouts_of(node, feeds, value.shape)[:1]:
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
                found = self.search.find([node], self.places, {source: Place(number, layout)})
                if found is not None and found.place.number != number:
                    self.faults.append(Fault(node.name, self._reads(node, number, self._between(start.number, number))))
                    return found
        return None

    def _leads_on(self, readers: Sequence[Node], places: Mapping[str, Place]) -> bool:
        """Tell whether one of the layers behind is right when it starts from these places."""
        return any(
            all(name in places for name in reader.inputs) and self.search.find([reader], places) is not None
            for reader in readers
        )

    def _nearest(
        self, node: Node, feeds: Mapping[str, Place], values: Mapping[int, Array] | None = None
    ) -> Aligned | None:
        """Return the tensor that is least wrong; of layers with weights the first one."""
        found = self.search.tried([node], feeds) if values is None else values
        first = bool(node.parameters) and not isinstance(node.layer, RecurrentLayer)
        options = [
            Place(number, layout)
            for number, value in (list(found.items())[:1] if first else found.items())
            for layout in self.search.layouts_of(node, feeds, value.shape)
        ]
        if not options:
            return None
        best = min(
            options,
            key=lambda place: (
                not self._called_alike(node, place.number),
                self.search.error(node, found[place.number], place.layout),
            ),
        )
        return Aligned((node,), feeds, best, False)

    def _called_alike(self, node: Node, number: int) -> bool:
        """Tell whether a tensor comes from an operation that is called like the layer."""
        maker = self._makers.get(number)
        name = "" if maker is None else maker.name.lower().replace("_", "")
        kind = node.layer.type.replace("_", "").rstrip("12d")
        return kind in name or ("pool" in kind and "pool" in name)


def _named(operations: Sequence[Operation]) -> str:
    """Name operations and who does them: ``relu (features.3), add``."""
    shown = [f"{item.name} ({item.owner})" if item.owner else item.name for item in operations[:4]]
    return ", ".join(shown) + (", ..." if len(operations) > 4 else "")
