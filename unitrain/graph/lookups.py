"""Which elements of integer inputs are used as indices, and of what: found by moving numbers of elements about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from unitrain.graph.node import Node
from unitrain.spec.layers import Concatenate, Embedding, Flatten, Gather, Permute, Reshape, Select, Slice, Split, Stack
from unitrain.spec.layers.base import LayerSpec
from unitrain.spec.model import InputSpec

# For each element of a value the elements of inputs that it may be, by their numbers, on the last axis; -1 for none.
Elements = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Lookup:
    """A layer that looks up by elements of an integer input.

    Parameters
    ----------
    node
        Name of the layer's node.
    rows
        What indices are below.
    source
        Name of the input.
    places
        Places of those elements in a sample of the input, flattened.
    """

    node: str
    rows: int
    source: str
    places: npt.NDArray[np.int64]


def find_lookups(inputs: Mapping[str, InputSpec], nodes: Sequence[Node]) -> tuple[Lookup, ...]:
    """Return the embeddings and gathers whose indices are elements of inputs, as often as they read several inputs.

    ``inputs`` and ``nodes`` are a graph's, nodes in topological order. Only layers that move elements stand between
    an integer input and its lookups; what computes integers, such as a mask, gives others than it reads.
    """
    numbers, sources = 0, []
    values: dict[str, Elements] = {}
    for name, given in inputs.items():
        if given.dtype == "integer":
            count = prod(given.shape)
            values[name] = (numbers + np.arange(count)).reshape(*given.shape, 1)
            sources.append((name, numbers, numbers + count))
            numbers += count
    found: list[Lookup] = []
    for node in nodes:
        layer = node.layer
        if isinstance(layer, Embedding):
            indices, rows = node.inputs[0], layer.vocabulary
        elif isinstance(layer, Gather):
            indices, rows = node.inputs[-1], node.input_shapes[0][0]
        else:
            indices, rows = "", 0
        if indices in values:
            reached = np.unique(values[indices])
            for name, first, end in sources:
                places = reached[(first <= reached) & (reached < end)] - first
                if places.size:
                    found.append(Lookup(node.name, rows, name, places))
        read = node.inputs[:1] if isinstance(layer, Gather) else node.inputs
        if node.dtype == "integer" and layer.gives is None and any(name in values for name in read):
            shapes = dict(zip(node.inputs, node.input_shapes, strict=True))
            of_inputs = [values[name] if name in values else np.full((*shapes[name], 1), -1) for name in read]
            values[node.name] = _moved(node, layer, of_inputs)
    return tuple(found)


def _moved(node: Node, layer: LayerSpec, given: list[Elements]) -> Elements:
    """Return where the elements are behind a layer that moves them."""
    most = max(elements.shape[-1] for elements in given)
    given = [_widened(elements, most) for elements in given]
    rank = given[0].ndim - 1
    match layer:
        case Flatten() | Reshape():
            return given[0].reshape(*node.output_shape, most)
        case Permute(axes=axes):
            return given[0].transpose(*axes, rank)
        case Concatenate(axis=axis):
            return np.concatenate(given, axis % rank)
        case Stack(axis=axis):
            return np.stack(given, axis % (rank + 1))
        case Slice() | Split():
            positions = np.array(layer.positions(given[0].shape[:-1]))
            return given[0].take(positions, layer.axis % rank)
        case Select(axis=axis, index=index):
            return given[0][(slice(None),) * (axis % rank) + (index,)]
        case Gather():
            # Any position may be chosen.
            every = np.moveaxis(given[0], 0, -1)
            every = every.reshape(*every.shape[:-2], -1)
            return np.broadcast_to(every, (*node.output_shape, every.shape[-1]))
        case _:
            raise AssertionError(f"{layer.type} moves integers in a way that is not known")


def _widened(elements: Elements, most: int) -> Elements:
    return np.pad(elements, [(0, 0)] * (elements.ndim - 1) + [(0, most - elements.shape[-1])], constant_values=-1)
