"""Finds the spec's layers in the user's model: for each, the tensors before and behind it.

A layer stands where a section of the recorded pass, given what the reference gives that layer, computes what the
reference computes. Layers with parameters are found by them even where they compute something else. What cannot be
found alone is sought together with the layers behind it, since a port may do two things in another order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from unitrain.graph.node import Node
from unitrain.verify.against.odd_layers import OddLayers
from unitrain.verify.against.places import Aligned, Fault, Place
from unitrain.verify.against.search import Search
from unitrain.verify.growth import inherited_growth

# At most so many layers are sought together.
TOGETHER = 5


@dataclass
class Alignment:
    """The spec's layers in the user's model, for one mode.

    Parameters
    ----------
    search
        Finds the layers that are right.
    inputs
        Where the spec's inputs are.
    """

    search: Search
    inputs: Mapping[str, Place]
    places: dict[str, Place] = field(init=False)
    sections: list[Aligned] = field(init=False, default_factory=list)
    faults: list[Fault] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.places = dict(self.inputs)
        self.graph, self.expected, self.trace = self.search.graph, self.search.expected, self.search.trace

    def run(self) -> Alignment:
        """Place all layers that can be placed."""
        odd = OddLayers(self.search, self.places)
        done: set[str] = set()
        for position, node in enumerate(self.graph.nodes):
            if node.name in done or any(name not in self.places for name in node.inputs):
                continue
            for chain in self._chains(position):
                found = self.search.find(chain, self.places)
                if found is not None:
                    break
            else:
                found = odd.place(node)
            if found is None:
                continue
            self.sections.append(found)
            done |= {item.name for item in found.nodes}
            self.places[found.nodes[-1].name] = found.place
        self.faults += odd.faults
        return self

    def _chains(self, position: int) -> list[tuple[Node, ...]]:
        """Return a node alone, and with those behind it as long as each is all that reads the one before.

        A layer with weights is sought alone where its result can be told apart: together with others its mistakes
        could hide, behind a saturated activation for one.
        """
        chain = [self.graph.nodes[position]]
        chains = [tuple(chain)]
        weighted = bool(chain[0].parameters)
        if weighted and self.search.reached(chain, {name: self.places[name] for name in chain[0].inputs}):
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

    def inherited_growth(self) -> Mapping[str, float]:
        """Return the growth of every layer's result in the whole model."""
        return inherited_growth(self.graph, self.search.batch, self.expected.training)

    def rows(self) -> dict[str, tuple[int, ...]]:
        """Return parameters whose rows follow the order in which the user's model flattens, and that order."""
        found: dict[str, tuple[int, ...]] = {}
        for node in self.graph.nodes:
            place = self.places.get(node.inputs[0])
            if place is None or len(self.graph.shape(node.inputs[0])) != 1 or not place.layout.moves:
                continue
            order = tuple(int(row) for row in place.layout.order())
            for local, name in node.parameters.items():
                if (local == "kernel" or node.layer.type != "dense") and name in self.search.bindings:
                    found[name] = order
        return found
