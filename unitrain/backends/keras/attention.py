"""Attention of several heads: four dense layers of Keras, and between them what is attended to."""

from __future__ import annotations

from math import sqrt
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from unitrain.backends.keras.dropout import apply_dropout
from unitrain.backends.keras.registry import Context, KerasTensor, implements, saved
from unitrain.backends.tables import alibi_bias, causal_mask, rotary_angles
from unitrain.spec.layers import Attention


@saved
class AttentionWeights(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Softmax of the products of queries and keys: ``[batch, head, query, key]``.

    Called on queries ``[batch, length, head * channel]`` and keys, and a mask ``[batch, key]`` if there is one.
    """

    def __init__(
        self, heads: int, groups: int, causal: bool, position: str, base: float, layout: str, **options: Any
    ) -> None:
        super().__init__(**options)
        self.heads, self.groups, self.causal = heads, groups, causal
        self.position, self.base, self.layout = position, base, layout

    def call(self, inputs: Any) -> Any:
        """Compute the weights, in 16 bits in float32."""
        return attention_weights(self, inputs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """One weight for each pair of positions."""
        q, k = input_shape[:2]
        return (q[0], self.heads, q[1], k[1])

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        names = ("heads", "groups", "causal", "position", "base", "layout")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def attention_weights(layer: Any, inputs: Any) -> Any:
    """Compute `AttentionWeights` by operations of Keras."""
    ops = keras.ops
    q, k, *masks = inputs
    wide = "float64" if q.dtype == "float64" else "float32"
    length, keys = q.shape[1], k.shape[1]
    channels = q.shape[2] // layer.heads
    q, k = (
        ops.transpose(ops.reshape(ops.cast(x, wide), (-1, size, heads, channels)), (0, 2, 1, 3))
        for x, size, heads in ((q, length, layer.heads), (k, keys, layer.groups))
    )
    if layer.position == "rotary":
        angles = rotary_angles(length, channels, layer.base)
        q, k = (_turned(x, np.cos(angles).astype(wide), np.sin(angles).astype(wide), layer.layout) for x in (q, k))
    # Heads that share keys stand below one another: more rows of the same product.
    rows = ops.reshape(q, (-1, layer.groups, layer.heads // layer.groups * length, channels))
    scores = ops.matmul(rows, ops.transpose(k, (0, 1, 3, 2)))
    scores = ops.reshape(scores, (-1, layer.heads, length, keys)) * (1.0 / sqrt(channels))
    if layer.position == "alibi":
        scores = scores + alibi_bias(layer.heads, length).astype(wide)
    kept = causal_mask(length, keys)[None, None] if layer.causal else None
    for mask in masks:
        allowed = ops.reshape(ops.not_equal(mask, 0), (-1, 1, 1, keys))
        kept = allowed if kept is None else ops.logical_and(allowed, kept)
    if kept is not None:
        scores = ops.where(kept, scores, tf.as_dtype(wide).min)
    # TensorFlow's own softmax gives a single key a weight that is not quite 1, and so a gradient.
    shares = ops.exp(scores - ops.stop_gradient(ops.max(scores, axis=-1, keepdims=True)))
    weights = shares / ops.sum(shares, axis=-1, keepdims=True)
    if masks:
        weights = ops.where(kept, weights, 0.0)
    return ops.cast(weights, layer.compute_dtype)


def _turned(x: Any, cos: Any, sin: Any, layout: str) -> Any:
    ops = keras.ops
    half = x.shape[-1] // 2
    if layout == "half":
        a, b = x[..., :half], x[..., half:]
        return ops.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
    a, b = x[..., 0::2], x[..., 1::2]
    return ops.reshape(ops.stack([a * cos - b * sin, b * cos + a * sin], axis=-1), (-1, *x.shape[1:]))


@saved
class WithoutGradient(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """The same numbers, and a gradient of zero; none at all would leave the weight before it out."""

    def call(self, x: Any) -> Any:
        """Return what is given."""
        return tf.stop_gradient(x) + 0.0 * x

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the input shape."""
        return input_shape


@saved
class AttentionMix(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Sums of values by attention weights, the heads side by side: ``[batch, query, head * channel]``."""

    def __init__(self, groups: int, **options: Any) -> None:
        super().__init__(**options)
        self.groups = groups

    def call(self, inputs: Any) -> Any:
        """Mix ``[batch, key, group * channel]``."""
        return attention_mix(self, inputs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Each head has as many channels as each group."""
        weights, v = input_shape
        return (weights[0], weights[2], v[2] // self.groups * weights[1])

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {**super().get_config(), "groups": self.groups}


def attention_mix(layer: Any, inputs: Any) -> Any:
    """Compute `AttentionMix` by operations of Keras."""
    ops = keras.ops
    weights, v = inputs
    _, heads, length, keys = weights.shape
    channels = v.shape[2] // layer.groups
    v = ops.transpose(ops.reshape(v, (-1, keys, layer.groups, channels)), (0, 2, 1, 3))
    rows = ops.reshape(weights, (-1, layer.groups, heads // layer.groups * length, keys))
    mixed = ops.reshape(ops.matmul(rows, v), (-1, heads, length, channels))
    return ops.reshape(ops.transpose(mixed, (0, 2, 1, 3)), (-1, length, heads * channels))


@implements(Attention)
def attention(layer: Attention, context: Context, x: KerasTensor, *sides: KerasTensor) -> KerasTensor:
    """Keras' ``MultiHeadAttention`` has other kernels, and the mean of all values where nothing may be attended to."""
    named = layer.sides((x, *sides))
    (z,) = named.get("key_value", (x,))
    table = layer.parameters(*context.node.input_shapes)

    def projected(name: str, given: KerasTensor) -> KerasTensor:
        units, kernel, bias = table[name].shape[-1], {name: "kernel"}, {f"{name}_bias": "bias"}
        if layer.use_bias and (name != "key" or layer.key_bias_learns):
            return context.apply(
                keras.layers.Dense, given, part=name, weights=kernel | bias, units=units, use_bias=True
            )
        y = context.apply(keras.layers.Dense, given, part=name, weights=kernel, units=units, use_bias=False)
        if not layer.use_bias:
            return y
        # A dense layer of a single one gives the bias.
        one = keras.ops.ones_like(y[:1, :1, :1])
        fixed = context.apply(
            keras.layers.Dense, one, part="key_bias", weights={"key_bias": "kernel"}, units=units, use_bias=False
        )
        return keras.ops.add(y, context.apply(WithoutGradient, fixed, part="fixed_key_bias"))

    weights = context.apply(
        AttentionWeights,
        [projected("query", x), projected("key", z), *named.get("mask", ())],
        part="weights",
        heads=layer.heads,
        groups=layer.groups,
        causal=layer.causal,
        position=layer.position,
        base=layer.rotary_base,
        layout=layer.rotary_layout,
    )
    if layer.dropout:
        weights = apply_dropout(context, weights, layer.dropout, part="dropout")
    mixed = context.apply(AttentionMix, [weights, projected("value", z)], part="mixed", groups=layer.groups)
    return projected("output", mixed)
