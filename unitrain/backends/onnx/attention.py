"""Attention of several heads, by matrix products and a softmax, which onnxruntime fuses where it can."""

from __future__ import annotations

from math import sqrt

import numpy as np

from unitrain.backends.onnx.emitter import LayerEmitter, Value
from unitrain.backends.onnx.registry import implements
from unitrain.backends.tables import alibi_bias, causal_mask, rotary_angles
from unitrain.spec.layers.attention import Attention


@implements(Attention)
def attention(layer: Attention, b: LayerEmitter, x: Value, *sides: Value) -> Value:
    """Heads that share keys stand below one another, as more rows of the same product."""
    named = layer.sides((x, *sides))
    (z,) = named.get("key_value", (x,))
    length, keys = x.shape[0], z.shape[0]
    channels = layer.channels(x.shape)
    heads, groups = layer.heads, layer.groups
    rows = heads // groups * length

    def split(name: str, given: Value, count: int) -> str:
        return b.op(
            "Transpose", b.reshaped(_projected(b, name, b.last(given)), [-1, count, channels]), perm=[0, 2, 1, 3]
        )

    q = _turned(layer, b, split("query", x, heads), length, channels)
    k = _turned(layer, b, split("key", z, groups), keys, channels)
    # The factor belongs to the queries: they are fewer than the products.
    q = b.reshaped(b.op("Mul", q, b.number(1.0 / sqrt(channels))), [groups, rows, channels])
    scores = b.op("MatMul", q, b.op("Transpose", k, perm=[0, 1, 3, 2]))
    scores = b.reshaped(scores, [heads, length, keys])
    if layer.position == "alibi":
        scores = b.op("Add", scores, b.floats(alibi_bias(heads, length)[None]))
    kept = _kept(layer, b, named, length, keys)
    lowest = b.number(float(np.finfo(b.dtype).min))
    if kept is not None:
        scores = b.op("Where", kept, scores, lowest)
    weights = b.op("Softmax", scores, axis=3)
    if kept is not None and "mask" in named:
        weights = b.op("Where", kept, weights, b.number(0.0))
    mixed = b.op("MatMul", b.reshaped(weights, [groups, rows, keys]), split("value", z, groups))
    mixed = b.op("Transpose", b.reshaped(mixed, [heads, length, channels]), perm=[0, 2, 1, 3])
    return b.value(_projected(b, "output", b.reshaped(mixed, [length, heads * channels])))


def _projected(b: LayerEmitter, name: str, x: str) -> str:
    y = b.op("MatMul", x, b.parameter(name))
    for bias in b.optional(f"{name}_bias"):
        y = b.op("Add", y, bias)
    return y


def _kept(layer: Attention, b: LayerEmitter, named: dict[str, tuple[Value, ...]], length: int, keys: int) -> str | None:
    """Return what may be attended to, to be stretched to ``[batch, head, query, key]``; None for all."""
    kept = b.graph.constant(causal_mask(length, keys)[None, None]) if layer.causal else None
    for mask in named.get("mask", ()):
        allowed = b.op("Cast", b.reshaped(b.last(mask), [1, 1, keys]), to=9)  # a bool
        kept = allowed if kept is None else b.op("And", allowed, kept)
    return kept


def _turned(layer: Attention, b: LayerEmitter, x: str, length: int, channels: int) -> str:
    """``x cos + turned(x) sin``, where the second has pair by pair ``-b, a`` for ``a, b``."""
    if layer.position != "rotary":
        return x
    angles = rotary_angles(length, channels, layer.rotary_base)
    places = np.arange(channels)
    if layer.rotary_layout == "half":
        angles, partners = np.tile(angles, 2), np.roll(places, -(channels // 2))
        signs = np.where(places < channels // 2, -1.0, 1.0)
    else:
        angles, partners = np.repeat(angles, 2, axis=1), places ^ 1
        signs = np.where(places % 2 == 0, -1.0, 1.0)
    partner = b.op("Gather", x, b.integers(partners), axis=3)
    plain = b.op("Mul", x, b.floats(np.cos(angles)))
    return b.op("Add", plain, b.op("Mul", partner, b.floats(np.sin(angles) * signs)))
