"""Checks integer inputs against the embeddings they reach, once a data set and not in every step."""

from __future__ import annotations

import numpy as np

from unitrain.backends.contract import Arrays
from unitrain.graph.graph import Graph
from unitrain.spec.errors import InputError
from unitrain.spec.layers import Embedding


def check_indices(graph: Graph, inputs: Arrays) -> None:
    """Compare integer inputs with the tables of the embeddings they reach.

    Only layers that move elements stand between an integer input and an embedding, so the input's values are
    the indices.

    Raises
    ------
    InputError
        An index is outside: names the embedding, the index and the allowed range.
    """
    sources: dict[str, set[str]] = {name: {name} for name in graph.inputs}
    for node in graph.nodes:
        sources[node.name] = set().union(*(sources[name] for name in node.inputs))
        if not isinstance(node.layer, Embedding):
            continue
        for name in sources[node.name]:
            array = np.asarray(inputs[name])
            wrong = (array < 0) | (array >= node.layer.vocabulary)
            if wrong.any():
                raise InputError(
                    f"embedding '{node.name}' is given an index outside its table",
                    found=str(array[wrong].flat[0]),
                    allowed=f"0 .. {node.layer.vocabulary - 1}",
                )
