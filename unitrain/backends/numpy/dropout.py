"""Layers that leave something out in training."""

from __future__ import annotations

from math import prod

import numpy.typing as npt

from unitrain.backends.numpy.registry import Array, Context, Gradients, Parameters, Result, implements
from unitrain.spec.layers.dropout import Dropout, StochasticDepth
from unitrain.weights.random import keep_mask, mask_key


def scaled_mask(
    context: Context, shape: tuple[int, ...], rate: float, samples: int, dtype: npt.DTypeLike
) -> Array | None:
    """Return this node's mask ``[samples, *shape]``, 1 / (1 - rate) where kept, else 0; None where all is kept."""
    if not context.training or rate == 0.0:
        return None
    key = mask_key(context.seed, "dropout", context.node.name)
    whole = samples if context.samples is None else context.samples
    kept = keep_mask(key, context.step, whole * prod(shape), rate).reshape(whole, *shape)
    mask: Array = kept[context.first : context.first + samples].astype(dtype) * (1.0 / (1.0 - rate))
    return mask


@implements(Dropout, StochasticDepth)
def dropout(layer: Dropout | StochasticDepth, context: Context, parameters: Parameters, x: Array) -> Result:
    """``y = m x``, m = 1 / (1 - rate) where kept, else 0: dx = m dy. The identity in inference."""
    mask = scaled_mask(context, layer.mask_shape(x.shape[1:]), layer.rate, len(x), x.dtype)
    if mask is None:
        return x, lambda dy: ((dy,), {})

    def backward(dy: Array) -> Gradients:
        return (dy * mask,), {}

    return x * mask, backward
