"""How a module goes through the nodes of its graph, decided once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from unitrain.backends.torch.window import channels_first, channels_last
from unitrain.graph.graph import Graph

Turn = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Step:
    """One node.

    Parameters
    ----------
    name
        Of the node.
    path
        Of the module that computes it; None where the value is that of its input.
    inputs
        Names of values, and how each is seen in another order, if it is.
    options
        What the module is told: ``rectify`` to take ReLU in place, ``first`` that channels come first and stay so.
    last_read
        Values that nobody reads afterwards.
    """

    name: str
    path: str | None
    inputs: tuple[tuple[str, Turn | None], ...]
    options: Mapping[str, Any]
    last_read: tuple[str, ...]


Way = tuple[Step, ...]


def way_through(
    graph: Graph,
    paths: Mapping[str, str],
    rectified: Mapping[str, str] | None = None,
    first: Collection[str] = (),
) -> Way:
    """Return the way through a graph.

    Parameters
    ----------
    paths
        Node to the path of the module that computes it.
    rectified
        Nodes of ReLU to those before, whose modules take it along.
    first
        Nodes of which modules compute channels first.
    """
    rectified = rectified or {}
    rectifying = {*rectified.values()}
    kept = {*graph.outputs.values()}
    last_reader = {name: node.name for node in graph.nodes for name in node.inputs}
    lies_first: set[str] = set()
    steps = []
    for node in graph.nodes:
        passed = node.name in rectified
        # What joins values keeps them in the order in which they all lie.
        inside = node.name in first and not passed and (len(node.inputs) == 1 or lies_first.issuperset(node.inputs))
        options = {key: True for key, told in (("rectify", node.name in rectifying), ("first", inside)) if told}
        # What nothing is done to lies as it lay, unless it is given away.
        turned = node.name not in kept and node.inputs[0] in lies_first if passed else inside
        inputs = tuple((name, _turn(name in lies_first, turned)) for name in node.inputs)
        if turned:
            lies_first.add(node.name)
        last = tuple(name for name in dict.fromkeys(node.inputs) if last_reader[name] == node.name and name not in kept)
        steps.append(Step(node.name, None if passed else paths[node.name], inputs, options, last))
    return tuple(steps)


def _turn(lies_first: bool, wanted_first: bool) -> Turn | None:
    if lies_first == wanted_first:
        return None
    return channels_first if wanted_first else channels_last
