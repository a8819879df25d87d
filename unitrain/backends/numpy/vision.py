"""Parts of vision models."""

from __future__ import annotations

import numpy as np

from unitrain.backends.numpy.reduction import sum_leading, sum_to_channel
from unitrain.backends.numpy.registry import Array, Context, Gradients, Parameters, Result, implements
from unitrain.spec.layers.vision import ClassToken, LayerScale


@implements(LayerScale)
def layer_scale(layer: LayerScale, context: Context, parameters: Parameters, x: Array) -> Result:
    """``y = s x`` by channel: dx = s dy, ds = sum(x dy)."""
    scale = parameters["scale"]

    def backward(dy: Array) -> Gradients:
        return (dy * scale,), {"scale": sum_to_channel(dy * x)}

    return x * scale, backward


@implements(ClassToken)
def class_token(layer: ClassToken, context: Context, parameters: Parameters, x: Array) -> Result:
    """The token, then the sequence: dtoken is the sum of dy's first step over the batch, dx the rest of dy."""
    token = np.broadcast_to(parameters["token"], (len(x), 1, x.shape[-1]))

    def backward(dy: Array) -> Gradients:
        return (dy[:, 1:],), {"token": sum_leading(dy[:, 0], 1)}

    return np.concatenate([token, x], axis=1), backward
