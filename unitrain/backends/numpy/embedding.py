"""Embedding tables."""

from __future__ import annotations

import numpy as np

from unitrain.backends.numpy.registry import Array, Context, Gradients, Parameters, Result, implements
from unitrain.spec.errors import InputError
from unitrain.spec.layers.embedding import Embedding


@implements(Embedding)
def embedding(layer: Embedding, context: Context, parameters: Parameters, index: Array) -> Result:
    """``y[i] = table[index[i]]``: dtable[v] is the sum of dy[i] over all i with index[i] = v.

    With a table per position p the rows of its table begin at p * vocabulary.

    Raises
    ------
    InputError
        An index is outside ``0 .. vocabulary - 1``.
    """
    wrong = (index < 0) | (index >= layer.vocabulary)
    if wrong.any():
        raise InputError(
            f"embedding '{context.node.name}' is given an index outside its table",
            found=str(index[wrong].flat[0]),
            allowed=f"0 .. {layer.vocabulary - 1}",
        )
    table = parameters["table"]
    if layer.table_per_position:
        index = index + layer.vocabulary * np.arange(index.shape[-1])

    def backward(dy: Array) -> Gradients:
        # Equal indices are brought together by sorting, then each run is summed.
        flat = index.reshape(-1)
        gradient = np.zeros_like(table)
        if flat.size:
            order = np.argsort(flat, kind="stable")
            values, starts = np.unique(flat[order], return_index=True)
            gradient[values] = np.add.reduceat(dy.reshape(-1, layer.width)[order], starts, axis=0)
        return (None,), {"table": gradient}

    return table[index], backward
