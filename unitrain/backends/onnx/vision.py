"""Parts of vision models."""

from __future__ import annotations

import numpy as np

from unitrain.backends.onnx.emitter import LayerEmitter, Value
from unitrain.backends.onnx.registry import implements
from unitrain.spec.layers.vision import ClassToken, LayerScale


@implements(LayerScale)
def layer_scale(layer: LayerScale, b: LayerEmitter, x: Value) -> Value:
    """In the layout that the value is in."""
    scale = b.weight("scale")
    shaped = scale.reshape(-1, *(1,) * (x.rank - 2)) if x.layout == "channels_first" else scale
    return b.value(b.op("Mul", x.forms[x.layout], b.parameter("scale", shaped)), x.layout)


@implements(ClassToken)
def class_token(layer: ClassToken, b: LayerEmitter, x: Value) -> Value:
    """A place is made before the sequence, and the token put there."""
    length = x.shape[0] + 1
    padded = b.op("Pad", b.last(x), b.integers([0, 1, 0, 0, 0, 0]))
    first = b.graph.constant((np.arange(length) == 0).reshape(1, length, 1))
    return b.value(b.op("Where", first, b.parameter("token", b.weight("token").reshape(1, 1, -1)), padded))
