"""Recurrent layers' weights: every framework has their gates in an order of its own, and some have two biases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from unitrain.backends.foreign import GATES, ForeignParameter
from unitrain.graph.node import Node
from unitrain.spec.layers.base import Shape

Array = npt.NDArray[Any]

_BACKWARD = "backward_"


@dataclass(frozen=True)
class Blocks:
    """How a part of one of their arrays becomes a parameter of the spec, or one of two that are added up.

    Parameters
    ----------
    inner
        Their axis of what is multiplied with the kernel; None for a bias.
    columns
        For each column of the spec's the place among theirs, all other axes in a row; -1 for a zero.
    shape
        The spec's shape.
    """

    inner: int | None
    columns: tuple[int, ...]
    shape: Shape

    def to_ours(self, array: Array) -> Array:
        """Convert a parameter, or a gradient by it."""
        if self.inner is None:
            table = array.reshape(1, -1)
        else:
            table = np.moveaxis(array, self.inner, 0).reshape(array.shape[self.inner], -1)
        padded = np.concatenate([table, np.zeros((len(table), 1), array.dtype)], axis=1)
        return np.ascontiguousarray(padded[:, list(self.columns)]).reshape(self.shape)


Source = tuple[ForeignParameter, Blocks]


def recurrent_sources(
    node: Node, shapes: Mapping[str, Shape], groups: Sequence[Sequence[ForeignParameter]]
) -> dict[str, list[Source]] | None:
    """Say for each parameter of a recurrent layer which of theirs are added up to it; None where one is missing.

    Parameters
    ----------
    node
        The layer.
    shapes
        Of its parameters, by local name.
    groups
        Their parameters, owner by owner: both directions may be one layer, or two that follow one another, the
        backward one first if its name says so.

    Returns
    -------
    dict
        The first source is one that holds all of the parameter, and is trained where one is.
    """
    found: dict[str, list[Source]] = {}
    first = groups[0]
    both = any(block.startswith(_BACKWARD) for item in first for block in item.blocks)
    second = first if both else next((group for group in groups[1:] if any(item.blocks for item in group)), ())
    if second and not both and _named_backward(first) and not _named_backward(second):
        first, second = second, first
    for local, shape in shapes.items():
        backward = local.startswith(_BACKWARD)
        plain = local.removeprefix(_BACKWARD)
        sources = _sources(node, local if both else plain, shape, second if backward else first)
        if sources is None:
            return None
        found[local] = sources
    return found


def _named_backward(group: Sequence[ForeignParameter]) -> bool:
    return any(word in group[0].owner.lower() for word in ("backward", "reverse", "bwd"))


def _sources(node: Node, local: str, shape: Shape, group: Sequence[ForeignParameter]) -> list[Source] | None:
    """Find the blocks of one parameter in an owner's arrays; None where a gate is in none, or a size does not fit."""
    gates = "n" if local.endswith("recurrent_bias") else GATES[node.layer.type]
    units = shape[-1] // len(gates)
    whole: list[Source] = []
    partial: list[Source] = []
    for parameter in sorted(group, key=lambda item: not item.trainable):
        places = {
            gate: [place for place, block in enumerate(parameter.blocks) if block == f"{local}.{gate}"]
            for gate in gates
        }
        for turn in range(max(map(len, places.values()))):
            blocks = [found[turn] if turn < len(found) else -1 for found in places.values()]
            source = _cut(parameter, blocks, units, shape)
            if source is None:
                return None
            (partial if -1 in blocks else whole).append((parameter, source))
    return [*whole, *partial] if whole else None


def _cut(parameter: ForeignParameter, blocks: Sequence[int], units: int, shape: Shape) -> Blocks | None:
    inner = parameter.axes.index("i") if "i" in parameter.axes else None
    rows = 1 if inner is None else parameter.shape[inner]
    size = int(np.prod(parameter.shape))
    if size != rows * units * len(parameter.blocks) or (len(shape) == 2) != (inner is not None):
        return None
    if inner is not None and rows != shape[0]:
        return None
    columns = tuple(-1 if block < 0 else block * units + unit for block in blocks for unit in range(units))
    return Blocks(inner, columns, shape)
