"""Layers that join several inputs: in the layout that most of them are in."""

from __future__ import annotations

from functools import reduce

from unitrain.backends.onnx.emitter import LayerEmitter, Value
from unitrain.backends.onnx.registry import implements
from unitrain.spec.layers.merge import Add, Concatenate, Divide, Elementwise, Multiply, Subtract

_KINDS = {"add": "Add", "subtract": "Sub", "multiply": "Mul", "divide": "Div"}


@implements(Add, Subtract, Multiply, Divide)
def elementwise(layer: Elementwise, b: LayerEmitter, *inputs: Value) -> Value:
    """Two at a time, in order; all operators stretch axes of size 1."""
    tensors, layout = b.same_layout(inputs)
    kind = _KINDS[layer.type]
    return b.value(reduce(lambda left, right: b.op(kind, left, right), tensors), layout)


@implements(Concatenate)
def concatenate(layer: Concatenate, b: LayerEmitter, *inputs: Value) -> Value:
    """Side by side."""
    tensors, layout = b.same_layout(inputs)
    axis = layer.axis % len(inputs[0].shape) + 1
    return b.value(b.op("Concat", *tensors, axis=inputs[0].axis(axis, layout)), layout)
