"""Layers that leave something out in training."""

from __future__ import annotations

from math import prod

from unitrain.backends.numpy.registry import Array, Context, Gradients, Parameters, Result, implements
from unitrain.spec.layers.dropout import Dropout, StochasticDepth
from unitrain.weights.random import keep_mask, mask_key


@implements(Dropout, StochasticDepth)
def dropout(layer: Dropout | StochasticDepth, context: Context, parameters: Parameters, x: Array) -> Result:
    """``y = m x``, m = 1 / (1 - rate) where kept, else 0: dx = m dy. The identity in inference."""
    if not context.training:
        return x, lambda dy: ((dy,), {})
    key = mask_key(context.seed, "dropout", context.node.name)
    samples = len(x) if context.samples is None else context.samples
    shape = layer.mask_shape(x.shape[1:])
    kept = keep_mask(key, context.step, samples * prod(shape), layer.rate).reshape(samples, *shape)
    mask = kept[context.first : context.first + len(x)].astype(x.dtype) * (1.0 / (1.0 - layer.rate))

    def backward(dy: Array) -> Gradients:
        return (dy * mask,), {}

    return x * mask, backward
