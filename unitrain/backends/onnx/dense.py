"""Fully connected layers."""

from __future__ import annotations

from unitrain.backends.onnx.emitter import LayerEmitter, Value
from unitrain.backends.onnx.registry import implements
from unitrain.spec.layers.dense import Dense


@implements(Dense)
def dense(layer: Dense, b: LayerEmitter, x: Value) -> Value:
    """``Gemm`` over rows; over positions ``MatMul``, which takes any number of leading axes, and ``Add``."""
    if x.rank == 2:
        return b.value(b.op("Gemm", b.last(x), b.parameter("kernel"), *b.optional("bias")))
    y = b.op("MatMul", b.last(x), b.parameter("kernel"))
    for bias in b.optional("bias"):
        y = b.op("Add", y, bias)
    return b.value(y)
