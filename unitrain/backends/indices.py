"""Checks integer inputs against the embeddings they reach, once a data set and not in every step."""

from __future__ import annotations

import numpy as np

from unitrain.backends.contract import Arrays
from unitrain.graph.graph import Graph
from unitrain.spec.errors import InputError


def check_indices(graph: Graph, inputs: Arrays) -> None:
    """Compare integer inputs with the tables of the embeddings they reach.

    Raises
    ------
    InputError
        An index is outside: names the embedding, the index and the allowed range.
    """
    for embedding, rows, name in graph.indexed:
        array = np.asarray(inputs[name])
        wrong = (array < 0) | (array >= rows)
        if wrong.any():
            raise InputError(
                f"embedding '{embedding}' is given an index outside its table",
                found=str(array[wrong].flat[0]),
                allowed=f"0 .. {rows - 1}",
            )
