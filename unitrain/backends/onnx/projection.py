"""The projection back onto a vocabulary."""

from __future__ import annotations

from unitrain.backends.onnx.emitter import LayerEmitter, Value
from unitrain.backends.onnx.registry import implements
from unitrain.spec.layers.projection import TiedProjection


@implements(TiedProjection)
def tied_projection(layer: TiedProjection, b: LayerEmitter, x: Value) -> Value:
    """The table is turned by an operator, so that the file holds it once; onnxruntime does that when it loads."""
    y = b.op("MatMul", b.last(x), b.op("Transpose", b.parameter("table"), perm=[1, 0]))
    for bias in b.optional("bias"):
        y = b.op("Add", y, bias)
    return b.value(y)
