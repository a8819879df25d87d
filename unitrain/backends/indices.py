"""Checks indices against what they choose from: integer inputs once a data set, and not in every step."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from unitrain.backends.contract import Arrays
from unitrain.graph.graph import Graph
from unitrain.spec.errors import InputError


def check_indices(graph: Graph, inputs: Arrays) -> None:
    """Compare integer inputs with the layers that look up by them: embeddings and gathers.

    Raises
    ------
    InputError
        An index is outside: names the layer, the index and the allowed range.
    """
    for lookup in graph.lookups:
        array = np.asarray(inputs[lookup.source])
        used = array.reshape(len(array), prod(array.shape[1:]))
        if len(lookup.places) < used.shape[1]:
            used = used[:, lookup.places]
        refuse_outside(graph.node(lookup.node).layer.type, lookup.node, used, lookup.rows)


def refuse_outside(kind: str, name: str, indices: npt.NDArray[Any], rows: int) -> None:
    """Raise `InputError` unless all ``indices`` of layer ``name`` are in ``0 .. rows - 1``."""
    wrong = (indices < 0) | (indices >= rows)
    if wrong.any():
        raise InputError(
            f"{kind} '{name}' is given an index outside its {'table' if kind == 'embedding' else 'input'}",
            found=str(indices[wrong].flat[0]),
            allowed=f"0 .. {rows - 1}",
        )
