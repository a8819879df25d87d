"""How alike two vectors are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from unitrain.backends.onnx.emitter import LayerEmitter, Value
from unitrain.backends.onnx.registry import implements
from unitrain.spec.layers.similarity import Cosine, Dot


@implements(Dot, Cosine)
def inner(layer: Dot | Cosine, b: LayerEmitter, first: Value, second: Value) -> Value:
    """``Mul`` and ``ReduceSum``, for cosines of vectors of length one. In 16 bits in float32: squares would not fit."""
    left, right = b.last(first), b.last(second)
    narrow = b.dtype == np.float16
    if narrow:
        left, right = (b.op("Cast", tensor, to=TensorProto.FLOAT) for tensor in (left, right))
    if isinstance(layer, Cosine):
        left, right = (_unit(b, tensor, layer.epsilon, np.float32 if narrow else b.dtype) for tensor in (left, right))
    y = b.reduced("ReduceSum", b.op("Mul", left, right), [-1], keep=layer.keep_axis)
    return b.value(b.op("Cast", y, to=TensorProto.FLOAT16) if narrow else y)


def _unit(b: LayerEmitter, tensor: str, epsilon: float, dtype: npt.DTypeLike) -> str:
    square = b.reduced("ReduceSum", b.op("Mul", tensor, tensor), [-1], keep=True)
    least = b.graph.constant(np.array(epsilon**2, dtype))
    return b.op("Div", tensor, b.op("Sqrt", b.op("Max", square, least)))
