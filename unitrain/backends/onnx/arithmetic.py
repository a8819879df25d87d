"""Arithmetic with constants, and products of matrices."""

from __future__ import annotations

from unitrain.backends.onnx.emitter import LayerEmitter, Value
from unitrain.backends.onnx.registry import implements
from unitrain.spec.layers.arithmetic import Matmul, Power, Scale, Shift


@implements(Scale, Shift, Power)
def constant(layer: Scale | Shift | Power, b: LayerEmitter, x: Value) -> Value:
    """In the layout that the value is in."""
    kind, number = (
        ("Mul", layer.factor)
        if isinstance(layer, Scale)
        else ("Add", layer.amount)
        if isinstance(layer, Shift)
        else ("Pow", layer.exponent)
    )
    return b.value(b.op(kind, x.forms[x.layout], b.number(number)), x.layout)


@implements(Matmul)
def matmul(layer: Matmul, b: LayerEmitter, first: Value, second: Value) -> Value:
    """``MatMul``."""
    right = b.last(second)
    if layer.transpose_second:
        axes = list(range(second.rank))
        right = b.op("Transpose", right, perm=[*axes[:-2], axes[-1], axes[-2]])
    return b.value(b.op("MatMul", b.last(first), right))
