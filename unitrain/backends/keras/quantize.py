"""Rounding to the levels of integers, with the gradient straight through."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from unitrain.backends.keras.registry import Context, KerasTensor, implements, no_zeros, saved
from unitrain.spec.layers import FakeQuantize


@saved
class Rounding(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """`FakeQuantize` as a Keras layer; ``fields`` are the specification's."""

    def __init__(self, fields: dict[str, Any], **options: Any) -> None:
        super().__init__(**options)
        self.fields = fields
        self.spec = FakeQuantize.model_validate(fields)

    def build(self, input_shape: Any) -> None:
        """Make the variables."""
        size = (input_shape[-1] if self.spec.per_channel else 1,)
        if self.spec.range == "learned":
            self.scale = self.add_weight(shape=size, initializer="ones", name="scale")
        elif self.spec.range == "moving_average":
            for name in ("running_low", "running_high"):
                setattr(self, name, self.add_weight(shape=size, initializer="zeros", name=name, trainable=False))

    def call(self, x: Any, training: bool = False) -> Any:
        """Round ``[batch, ..., channel]``."""
        wide = tf.float64 if x.dtype == tf.float64 else tf.float32
        given, x = x.dtype, tf.cast(x, wide)
        least, most = self.spec.levels
        scale, zero = self._grid(tf.stop_gradient(x), bool(training))
        level = tf.round(tf.stop_gradient(x) / scale) + zero
        inside = tf.logical_and(level >= least, level <= most)
        levels = tf.clip_by_value(level, least, most) - zero
        # What is added is 0, and brings the gradients.
        kept = tf.where(inside, x, tf.zeros_like(x))
        y = levels * scale + (kept - tf.stop_gradient(kept))
        if self.spec.range == "learned":
            error = levels - tf.where(inside, tf.stop_gradient(x) / scale, tf.zeros_like(x))
            size = tf.abs(tf.cast(tf.convert_to_tensor(self.scale), wide))
            factor = self.spec.gradient_factor(tuple(x.shape[1:]))
            y += (size - tf.stop_gradient(size)) * (error * factor)
        return tf.cast(y, given)

    def _grid(self, x: Any, training: bool) -> tuple[Any, Any]:
        least, most = self.spec.levels
        if self.spec.range == "learned":
            scale = no_zeros(tf.abs(tf.stop_gradient(tf.cast(tf.convert_to_tensor(self.scale), x.dtype))))
            return scale, tf.zeros_like(scale)
        if isinstance(self.spec.range, tuple):
            low, high = (tf.constant([number], x.dtype) for number in self.spec.range)
        else:
            low, high = (tf.cast(tf.convert_to_tensor(held), x.dtype) for held in (self.running_low, self.running_high))
            if training:
                low, high = self._moved(x, low, high)
        low, high = tf.minimum(low, 0), tf.maximum(high, 0)
        if self.spec.symmetric:
            return no_zeros(tf.maximum(-low, high) / most), tf.zeros_like(low)
        scale = no_zeros((high - low) / most)
        return scale, tf.clip_by_value(tf.round(-low / scale), least, most)

    def _moved(self, x: Any, low: Any, high: Any) -> tuple[Any, Any]:
        """Move the running range towards the batch's, and return it."""
        rows = tf.reshape(x, [-1, x.shape[-1] if self.spec.per_channel else 1])
        empty = tf.logical_and(low == 0, high == 0)
        kept = self.spec.momentum
        moved = []
        for held, running, batch in (
            (self.running_low, low, tf.reduce_min(rows, 0)),
            (self.running_high, high, tf.reduce_max(rows, 0)),
        ):
            moved.append(tf.where(empty, batch, kept * running + (1 - kept) * batch))
            held.assign(tf.cast(moved[-1], held.dtype))
        return moved[0], moved[1]

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the input's."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {**super().get_config(), "fields": self.fields}


@implements(FakeQuantize)
def fake_quantize(layer: FakeQuantize, context: Context, x: KerasTensor) -> KerasTensor:
    """Keras has no such layer."""
    weights = {local: local for local in layer.parameters(*context.node.input_shapes)}
    fields = layer.model_dump(mode="json", exclude={"name", "inputs"})
    return context.apply(Rounding, x, weights=weights, fields=fields)
