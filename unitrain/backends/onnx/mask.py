"""Masks: integers that say which positions count."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from unitrain.backends.onnx.emitter import LayerEmitter, Value
from unitrain.backends.onnx.registry import implements
from unitrain.spec.layers.mask import LengthMask, PaddingMask


@implements(PaddingMask)
def padding_mask(layer: PaddingMask, b: LayerEmitter, tokens: Value) -> Value:
    """``Equal``, turned round."""
    is_padding = b.op("Equal", b.last(tokens), b.graph.constant(np.array(layer.padding, np.int32)))
    return b.value(b.op("Cast", b.op("Not", is_padding), to=TensorProto.INT32))


@implements(LengthMask)
def length_mask(layer: LengthMask, b: LayerEmitter, lengths: Value) -> Value:
    """``Less`` than the sample's length."""
    column = b.op("Reshape", b.last(lengths), b.integers([-1, 1]))
    kept = b.op("Less", b.graph.constant(np.arange(layer.length, dtype=np.int32)[None]), column)
    return b.value(b.op("Cast", kept, to=TensorProto.INT32))
