"""Dropout."""

from __future__ import annotations

from unitrain.backends.numpy.registry import Array, Context, Gradients, Parameters, Result, implements
from unitrain.spec.layers.dropout import Dropout
from unitrain.weights.random import keep_mask, mask_key


@implements(Dropout)
def dropout(layer: Dropout, context: Context, parameters: Parameters, x: Array) -> Result:
    """``y = m x``, m = 1 / (1 - rate) where kept, else 0: dx = m dy. The identity in inference."""
    if not context.training:
        return x, lambda dy: ((dy,), {})
    key = mask_key(context.seed, "dropout", context.node.name)
    samples = len(x) if context.samples is None else context.samples
    kept = keep_mask(key, context.step, samples * x[0].size, layer.rate).reshape(samples, *x.shape[1:])
    mask = kept[context.first : context.first + len(x)].astype(x.dtype) * (1.0 / (1.0 - layer.rate))

    def backward(dy: Array) -> Gradients:
        return (dy * mask,), {}

    return x * mask, backward
