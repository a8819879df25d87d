"""What a resolved model costs, layer by layer and in total: plain numbers, for tables and programs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

from unitrain.graph.graph import Graph
from unitrain.graph.node import Node
from unitrain.spec.layers.base import Shape


@dataclass(frozen=True)
class SummaryRow:
    """One layer, or the layers of a block taken together.

    Parameters
    ----------
    name
        Full name, blocks included; of a block cut at the depth asked for.
    type
        Type of the layer; ``block`` where several are taken together.
    layers
        How many layers the row stands for.
    inputs
        What it reads: names of rows or of model inputs.
    sequential
        Whether it reads just the row before (the first row: the model's only input).
    output_shape
        Batch left out.
    parameters, statistics
        Numbers in trainable parameters and in running statistics; a shared array counts where first used.
    shared_with
        Names of the layers, outside this row, that the row takes weights from.
    macs
        Multiply-accumulates for one sample.
    """

    name: str
    type: str
    layers: int
    inputs: tuple[str, ...]
    sequential: bool
    output_shape: Shape
    parameters: int
    statistics: int
    shared_with: tuple[str, ...]
    macs: int


@dataclass(frozen=True)
class Summary:
    """The rows and the totals.

    Parameters
    ----------
    name
        The model's name.
    inputs, outputs
        Name to shape, batch left out.
    rows
        In the order of computation.
    parameters, statistics
        Numbers in trainable parameters and in running statistics.
    macs
        Multiply-accumulates of matrix and convolution arithmetic for one sample.
    """

    name: str
    inputs: dict[str, Shape]
    outputs: dict[str, Shape]
    rows: tuple[SummaryRow, ...]
    parameters: int
    statistics: int
    macs: int

    def weight_bytes(self, item_size: int = 4) -> int:
        """Bytes of all weights, running statistics included, with ``item_size`` bytes a number."""
        return (self.parameters + self.statistics) * item_size


def summarise(graph: Graph, depth: int | None = None) -> Summary:
    """Count every layer of a graph.

    Parameters
    ----------
    graph
        The model.
    depth
        Take layers together whose names agree in their first ``depth`` parts: 1 shows a block as one row.
    """
    groups: dict[str, list[Node]] = {}
    for node in graph.nodes:
        parts = node.name.split(".")
        groups.setdefault(".".join(parts[:depth]), []).append(node)
    row_of = {node.name: name for name, nodes in groups.items() for node in nodes}
    counted: set[str] = set()
    rows: list[SummaryRow] = []
    before = next(iter(graph.inputs)) if len(graph.inputs) == 1 else ""
    for name, nodes in groups.items():
        rows.append(_row(graph, name, nodes, row_of, counted, before))
        before = name
    return Summary(
        graph.name,
        {name: given.shape for name, given in graph.inputs.items()},
        {name: graph.shape(node) for name, node in graph.outputs.items()},
        tuple(rows),
        graph.parameter_count(trainable=True),
        graph.parameter_count(trainable=False),
        graph.macs,
    )


def _row(
    graph: Graph, name: str, nodes: list[Node], row_of: dict[str, str], counted: set[str], before: str
) -> SummaryRow:
    sources = _unique(row_of.get(source, source) for node in nodes for source in node.inputs)
    inputs = tuple(source for source in sources if source != name)
    used = _unique(canonical for node in nodes for canonical in node.parameters.values())
    fresh = [graph.parameters[canonical] for canonical in used if canonical not in counted]
    counted.update(used)
    # The owner of shared weights may have a longer name than its row, or none of its own in the graph.
    owners = _unique(node.owner for node in nodes)
    return SummaryRow(
        name,
        nodes[0].layer.type if len(nodes) == 1 else "block",
        len(nodes),
        inputs,
        inputs == (before,),
        nodes[-1].output_shape,
        sum(prod(parameter.shape) for parameter in fresh if parameter.trainable),
        sum(prod(parameter.shape) for parameter in fresh if not parameter.trainable),
        tuple(owner for owner in owners if row_of.get(owner, owner) != name and not _inside(owner, name)),
        sum(node.macs for node in nodes),
    )


def _inside(owner: str, name: str) -> bool:
    return owner.startswith(f"{name}.")


def _unique(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))
