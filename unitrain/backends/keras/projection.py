"""The projection back onto a vocabulary."""

from __future__ import annotations

import keras

from unitrain.backends.keras.registry import Context, KerasTensor, implements
from unitrain.spec.layers import TiedProjection


@implements(TiedProjection)
def tied_projection(layer: TiedProjection, context: Context, x: KerasTensor) -> KerasTensor:
    """The product with all rows of an ``Embedding``: the layer's own, or the one that it is tied to."""
    ops = keras.ops
    # 0, 1, 2 ..., made of what is given so that the model's graph has them.
    first = ops.reshape(x[(slice(None, 1),) * len(x.shape)], (1,))
    places = ops.cumsum(ops.repeat(ops.ones_like(first, dtype="int32"), layer.units)) - 1
    table = context.apply(
        keras.layers.Embedding,
        places,
        weights={"table": "embeddings"},
        owner=context.node.parameters["table"].rpartition(".")[0],
        input_dim=layer.units,
        output_dim=x.shape[-1],
    )
    y = ops.matmul(x, ops.transpose(table))
    if not layer.use_bias:
        return y
    # A dense layer of a single one gives the bias; the sum over the batch, its gradient, is taken in float32.
    one = ops.ones_like(ops.reshape(first, (1, 1)))
    bias = context.apply(
        keras.layers.Dense, one, part="bias", weights={"bias": "kernel"}, units=layer.units, use_bias=False
    )
    wide = "float64" if x.dtype == "float64" else "float32"
    return ops.cast(ops.cast(y, wide) + ops.cast(ops.reshape(bias, (layer.units,)), wide), x.dtype)
