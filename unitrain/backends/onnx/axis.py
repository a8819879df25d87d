"""Layers along one axis."""

from __future__ import annotations

import numpy as np

from unitrain.backends.onnx.emitter import LayerEmitter, Value
from unitrain.backends.onnx.registry import implements
from unitrain.spec.layers.axis import Gather, Maximum, Mean, Select, Slice, Split, Stack, Sum


@implements(Slice, Split)
def take(layer: Slice | Split, b: LayerEmitter, x: Value) -> Value:
    """``Slice``, in the layout that the value is in."""
    positions = layer.positions(x.shape)
    axis = x.axis(layer.axis % len(x.shape) + 1, x.layout)
    ends = (b.integers([number]) for number in (positions.start, positions.stop, axis, positions.step))
    return b.value(b.op("Slice", x.forms[x.layout], *ends), x.layout)


@implements(Select)
def select(layer: Select, b: LayerEmitter, x: Value) -> Value:
    """``Gather`` of one place, which drops the axis."""
    axis = layer.axis % len(x.shape)
    place = b.integers(layer.index % x.shape[axis])
    return b.value(b.op("Gather", b.last(x), place, axis=axis + 1))


@implements(Gather)
def gather(layer: Gather, b: LayerEmitter, x: Value, indices: Value) -> Value:
    """``GatherND``, each sample by itself. It counts negative indices from the end; the program refuses them."""
    rows = b.op("Cast", b.reshaped(b.last(indices), (*indices.shape, 1)), to=7)  # int64
    return b.value(b.op("GatherND", b.last(x), rows, batch_dims=1))


@implements(Stack)
def stack(layer: Stack, b: LayerEmitter, *inputs: Value) -> Value:
    """``Concat`` of inputs that have the new axis."""
    axis = layer.axis % len(b.node.output_shape) + 1
    wider = [b.op("Unsqueeze", b.last(x), b.integers([axis])) for x in inputs]
    return b.value(b.op("Concat", *wider, axis=axis))


@implements(Sum)
def total(layer: Sum, b: LayerEmitter, x: Value) -> Value:
    """``ReduceSum``."""
    return b.value(b.reduced("ReduceSum", b.last(x), [layer.axis % len(x.shape) + 1], keep=layer.keep_axis))


@implements(Mean)
def mean(layer: Mean, b: LayerEmitter, x: Value, *masks: Value) -> Value:
    """``ReduceMean``; with a mask the sum of what is kept, by its share."""
    axis = layer.axis % len(x.shape) + 1
    for mask in masks:
        kept = b.op("Where", _kept(layer, b, x, mask), b.number(1.0), b.number(0.0))
        count = b.op("Max", b.reduced("ReduceSum", kept, [axis], keep=True), b.number(1.0))
        shared = b.op("Mul", b.last(x), b.op("Div", kept, count))
        return b.value(b.reduced("ReduceSum", shared, [axis], keep=layer.keep_axis))
    return b.value(b.reduced("ReduceMean", b.last(x), [axis], keep=layer.keep_axis))


@implements(Maximum)
def maximum(layer: Maximum, b: LayerEmitter, x: Value, *masks: Value) -> Value:
    """``ReduceMax``; what the mask leaves out is -infinity, and nothing but that is 0."""
    axis = layer.axis % len(x.shape) + 1
    for mask in masks:
        kept = _kept(layer, b, x, mask)
        seen = b.op("Where", kept, b.last(x), b.number(-np.inf))
        largest = b.reduced("ReduceMax", seen, [axis], keep=layer.keep_axis)
        number = b.op("Where", kept, b.number(1.0), b.number(0.0))
        some = b.op("Greater", b.reduced("ReduceSum", number, [axis], keep=layer.keep_axis), b.number(0.0))
        return b.value(b.op("Where", some, largest, b.number(0.0)))
    return b.value(b.reduced("ReduceMax", b.last(x), [axis], keep=layer.keep_axis))


def _kept(layer: Mean | Maximum, b: LayerEmitter, x: Value, mask: Value) -> str:
    return b.op("Cast", b.reshaped(b.last(mask), layer.mask_view(x.shape)), to=9)  # a bool
