"""Layers along one axis, by operations of Keras."""

from __future__ import annotations

import keras

from unitrain.backends.keras.registry import Context, KerasTensor, implements, widened
from unitrain.spec.layers import Gather, Maximum, Mean, Select, Slice, Split, Stack, Sum


@implements(Slice, Split)
def take(layer: Slice | Split, context: Context, x: KerasTensor) -> KerasTensor:
    """A slice."""
    shape = context.node.input_shapes[0]
    positions = layer.positions(shape)
    place = (slice(None),) * (layer.axis % len(shape) + 1)
    return x[(*place, slice(positions.start, positions.stop, positions.step))]


@implements(Select)
def select(layer: Select, context: Context, x: KerasTensor) -> KerasTensor:
    """One position."""
    shape = context.node.input_shapes[0]
    axis = layer.axis % len(shape)
    return x[(*(slice(None),) * (axis + 1), layer.index % shape[axis])]


@implements(Gather)
def gather(layer: Gather, context: Context, x: KerasTensor, indices: KerasTensor) -> KerasTensor:
    """Keras' own operation; gradients of equal indices add up in float32."""
    places = keras.ops.reshape(indices, (-1, *indices.shape[1:], *(1,) * (len(x.shape) - 2)))
    return keras.ops.cast(keras.ops.take_along_axis(widened(x), places, axis=1), x.dtype)


@implements(Stack)
def stack(layer: Stack, context: Context, *inputs: KerasTensor) -> KerasTensor:
    """Keras' own operation."""
    return keras.ops.stack(list(inputs), axis=layer.axis % len(context.node.output_shape) + 1)


@implements(Sum)
def total(layer: Sum, context: Context, x: KerasTensor) -> KerasTensor:
    """In 16 bits in float32."""
    axis = layer.axis % len(context.node.input_shapes[0]) + 1
    y = keras.ops.sum(widened(x), axis=axis, keepdims=layer.keep_axis)
    return keras.ops.cast(y, x.dtype)


@implements(Mean)
def mean(layer: Mean, context: Context, x: KerasTensor, *masks: KerasTensor) -> KerasTensor:
    """In 16 bits in float32."""
    ops = keras.ops
    axis = layer.axis % len(context.node.input_shapes[0]) + 1
    wide = widened(x)
    for mask in masks:
        kept = ops.reshape(ops.cast(ops.not_equal(mask, 0), wide.dtype), (-1, *layer.mask_view(x.shape[1:])))
        share = kept / ops.maximum(ops.sum(kept, axis=axis, keepdims=True), 1.0)
        return ops.cast(ops.sum(wide * share, axis=axis, keepdims=layer.keep_axis), x.dtype)
    return ops.cast(ops.mean(wide, axis=axis, keepdims=layer.keep_axis), x.dtype)


@implements(Maximum)
def maximum(layer: Maximum, context: Context, x: KerasTensor, *masks: KerasTensor) -> KerasTensor:
    """The first of equals is taken by its place: Keras' own operation would share the gradient among them."""
    ops = keras.ops
    axis = layer.axis % len(context.node.input_shapes[0]) + 1
    seen = x
    for mask in masks:
        kept = ops.reshape(ops.not_equal(mask, 0), (-1, *layer.mask_view(x.shape[1:])))
        seen = ops.where(kept, x, ops.cast(float("-inf"), x.dtype))
    # To TensorFlow's search 0 is larger than -0.
    seen = ops.where(ops.equal(seen, 0), ops.zeros_like(seen), seen)
    places = ops.expand_dims(ops.argmax(seen, axis=axis), axis)
    y = ops.take_along_axis(x, places, axis=axis)
    if masks:
        y = ops.where(ops.any(kept, axis=axis, keepdims=True), y, ops.zeros_like(y))
    return y if layer.keep_axis else ops.squeeze(y, axis=axis)
