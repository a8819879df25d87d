"""Rewrites of a graph and its weights; each keeps or states what it changes in the numbers computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from unitrain.graph.graph import Graph

Array = npt.NDArray[Any]
Weights = Mapping[str, Array]


class Rewritten(NamedTuple):
    """What a pass gives.

    Parameters
    ----------
    graph, weights
        The rewritten model, which fit each other.
    notes
        A line for each thing that was left as it was, with the reason.
    """

    graph: Graph
    weights: dict[str, Array]
    notes: tuple[str, ...] = ()


def used_once(graph: Graph) -> frozenset[str]:
    """Return the canonical names of the parameters that one node alone has."""
    counts = Counter(name for node in graph.nodes for name in node.parameters.values())
    return frozenset(name for name, count in counts.items() if count == 1)


def in_double(array: Array) -> npt.NDArray[np.float64]:
    """Return an array in float64, in which passes compute before they round to the dtype of the weights."""
    return np.asarray(array, dtype=np.float64)
