"""Mistakes of ports that are no layer's: weights copied wrong, and a softmax at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from unitrain.graph.graph import Graph
from unitrain.graph.node import Node
from unitrain.verify.against.layouts import Layout

Array = npt.NDArray[Any]


def explain_copied(graph: Graph, owner: str, local: str, theirs: Array, right: Array) -> str:
    """Say how a parameter, in canonical form, differs from what it was to be copied from."""
    node = next(item for item in graph.nodes if item.owner == owner and item.parameters)
    for source in _images(graph, node):
        shape = graph.shape(source)
        for title, layout in (("first", Layout.channels_first(shape)), ("last", Layout.same(shape))):
            order = layout.order()
            if layout.moves and theirs.shape[0] == len(order) and np.allclose(theirs, right[order], 1e-5, 1e-7):
                return (
                    f"the rows of its {local} are in the order of channels {title} behind '{source}': the model "
                    "that they come from flattens otherwise"
                )
    square = theirs.ndim > 1 and theirs.shape[-1] == theirs.shape[-2]
    if square and np.allclose(theirs, np.swapaxes(right, -1, -2), 1e-5, 1e-7):
        return f"its {local} is transposed: (out, in) for (in, out)"
    if np.allclose(np.sort(theirs, axis=None), np.sort(right, axis=None), 1e-5, 1e-7):
        return f"its {local} has the right numbers in another order"
    return f"its {local} has other numbers"


def _images(graph: Graph, node: Node) -> list[str]:
    """Return what is flattened before a layer, if anything is."""
    found = []
    name = node.inputs[0]
    while name not in graph.inputs:
        before = graph.node(name)
        if len(graph.shape(before.inputs[0])) > 1 and len(before.output_shape) == 1:
            found.append(before.inputs[0])
            break
        name = before.inputs[0]
    return found


def ending(given: Array, found: Array) -> str:
    """Name the function over classes that makes of the spec's output, ``[batch, ..., class]``, what was found."""
    for name, function in _ENDS.items():
        if np.allclose(found, function(given), rtol=1e-4, atol=1e-6):
            return name
    return ""


def _softmax(x: Array) -> Array:
    exponentials = np.exp(x - x.max(axis=-1, keepdims=True))
    result: Array = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return result


def _log_softmax(x: Array) -> Array:
    shifted = x - x.max(axis=-1, keepdims=True)
    result: Array = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def _sigmoid(x: Array) -> Array:
    result: Array = 1.0 / (1.0 + np.exp(-x))
    return result


_ENDS: dict[str, Callable[[Array], Array]] = {"softmax": _softmax, "log_softmax": _log_softmax, "sigmoid": _sigmoid}
