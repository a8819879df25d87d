"""Embedding tables."""

from __future__ import annotations

import numpy as np

from unitrain.backends.indices import refuse_outside
from unitrain.backends.numpy.reduction import sum_by_index
from unitrain.backends.numpy.registry import Array, Context, Gradients, Parameters, Result, implements
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
    refuse_outside(layer.type, context.node.name, index, layer.vocabulary)
    table = parameters["table"]
    if layer.table_per_position:
        index = index + layer.vocabulary * np.arange(index.shape[-1])

    def backward(dy: Array) -> Gradients:
        gradient = sum_by_index(dy.reshape(-1, layer.width), index.reshape(-1), len(table))
        return (None,), {"table": gradient}

    return table[index], backward
