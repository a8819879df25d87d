"""Which of the user's parameters is which of the spec's, and how its value is had from theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from unitrain.backends.foreign import ForeignParameter
from unitrain.graph.graph import Graph
from unitrain.graph.node import Node
from unitrain.verify.against.layouts import Conversion
from unitrain.verify.against.recurrent import Blocks, Source

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Binding:
    """One of the spec's parameters and the user's that it is.

    Parameters
    ----------
    ours
        Canonical name.
    theirs
        The user's.
    conversion
        From theirs to ours.
    also
        Further ones of theirs that are added to it, as the two biases of a recurrent layer are. Gradients by all of
        them are the same.
    """

    ours: str
    theirs: ForeignParameter
    conversion: Conversion | Blocks
    also: tuple[Source, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all of theirs."""
        return (self.theirs.name, *(parameter.name for parameter, _ in self.also))

    def value(self, arrays: Mapping[str, Array]) -> Array:
        """Return the canonical value, given their arrays."""
        value = self.conversion.to_ours(arrays[self.theirs.name])
        for parameter, conversion in self.also:
            value = value + conversion.to_ours(arrays[parameter.name])
        return value


Bindings = dict[str, Binding]


@dataclass(frozen=True)
class Owner:
    """A layer with parameters: the node that owns them, local to canonical names."""

    node: Node
    parameters: Mapping[str, str]


def owners_of(graph: Graph) -> list[Owner]:
    """Return the layers with parameters, each once, in the order of the graph."""
    owners: dict[str, Owner] = {}
    for node in graph.nodes:
        if node.parameters:
            owners.setdefault(node.owner, Owner(node, node.parameters))
    return list(owners.values())


def taken_by(bindings: Bindings) -> set[str]:
    """Return the names of all of theirs that are bound."""
    return {name for binding in bindings.values() for name in binding.names}


def canonical(bindings: Bindings, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return the user's weights in canonical form, float32."""
    return {name: binding.value(arrays).astype(np.float32) for name, binding in bindings.items()}


def with_rows(bindings: Bindings, name: str, rows: Sequence[int]) -> Bindings:
    """Return the bindings with the rows of one parameter in another order."""
    binding = bindings[name]
    conversion = binding.conversion
    if isinstance(conversion, Blocks):  # of a sequence, which nobody flattens
        return bindings
    return {**bindings, name: replace(binding, conversion=replace(conversion, rows=tuple(rows)))}
