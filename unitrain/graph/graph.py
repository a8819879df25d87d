"""The resolved model: nodes in topological order, each with concrete shapes and its table of parameters.

Everything else is a compiler (`Graph` to something that runs) or a pass (`Graph` and weights to the same).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod

from unitrain.graph.lookups import Lookup, find_lookups
from unitrain.graph.node import Node
from unitrain.spec.layers.base import Parameter, Shape
from unitrain.spec.model import InputSpec


@dataclass(frozen=True)
class Graph:
    """A model with every size known.

    Parameters
    ----------
    name
        The model's name.
    inputs
        Input name to its specification.
    nodes
        In topological order.
    outputs
        Output name to the node whose result it is (they differ where a layer names its activation).
    parameters
        Canonical name to parameter, in the order of first use.
    """

    name: str
    inputs: Mapping[str, InputSpec]
    nodes: tuple[Node, ...]
    outputs: Mapping[str, str]
    parameters: Mapping[str, Parameter]

    def node(self, name: str) -> Node:
        """Return the node called ``name``. Raises `KeyError`."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    def shape(self, name: str) -> Shape:
        """Return the shape, without batch, of a node's output or of a graph input."""
        return self.inputs[name].shape if name in self.inputs else self.node(name).output_shape

    @property
    def trainable(self) -> tuple[str, ...]:
        """Canonical names of the trainable parameters."""
        return tuple(name for name, parameter in self.parameters.items() if parameter.trainable)

    @cached_property
    def lookups(self) -> tuple[Lookup, ...]:
        """The layers that look up by elements of an input, and by which."""
        return find_lookups(self.inputs, self.nodes)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one sample through the whole graph."""
        return sum(node.macs for node in self.nodes)

    def parameter_count(self, trainable: bool) -> int:
        """Count the numbers in trainable parameters, or in running statistics."""
        return sum(prod(parameter.shape) for parameter in self.parameters.values() if parameter.trainable == trainable)
