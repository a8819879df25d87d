"""Parts of vision models."""

from __future__ import annotations

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
    """The token, once for each sample, before the sequence."""
    sequence = b.last(x)
    batch = b.op("Slice", b.op("Shape", sequence), b.integers([0]), b.integers([1]))
    token = b.parameter("token", b.weight("token").reshape(1, 1, -1))
    tokens = b.op("Expand", token, b.op("Concat", batch, b.integers([1, x.shape[-1]]), axis=0))
    return b.value(b.op("Concat", tokens, sequence, axis=1))
