"""Attention of several heads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

import numpy as np

from unitrain.backends.numpy.dropout import scaled_mask
from unitrain.backends.numpy.reduction import sum_to_channel
from unitrain.backends.numpy.registry import Array, Context, Gradients, Parameters, Result, implements
from unitrain.backends.tables import alibi_bias, causal_mask, rotary_angles
from unitrain.spec.layers.attention import Attention


@dataclass(frozen=True)
class Flow:
    """What an attention's backward pass has at hand where it comes to the softmax.

    Parameters
    ----------
    weights, d_weights
        P and the gradient by it, ``[batch, head, query, key]``.
    mixed, d_mixed
        C and the gradient by it, ``[batch, group, heads of the group * query, channel]``.
    """

    weights: Array
    d_weights: Array
    mixed: Array
    d_mixed: Array

    def shares(self) -> Array:
        """Return sum(dP P) of each row, ``[batch, head, query, 1]``."""
        total: Array = (self.d_weights * self.weights).sum(axis=-1, keepdims=True)
        return total


@implements(Attention)
def attention(layer: Attention, context: Context, parameters: Parameters, x: Array, *sides: Array) -> Result:
    """Attention, whose formulas `attend` states."""
    return attend(layer, context, parameters, x, sides, _kept_weights, Flow.shares)


def attend(
    layer: Attention,
    context: Context,
    parameters: Parameters,
    x: Array,
    sides: tuple[Array, ...],
    weigh: Callable[[Array, Array | None], tuple[Array, Array]],
    shares: Callable[[Flow], Array],
) -> Result:
    """``y = softmax(Q K^T / sqrt(d)) V O`` for each head, with Q = x W_q, K = z W_k, V = z W_v.

    With P = softmax(S) and dP = dC V^T the gradients are dV = P^T dC, dS = P (dP - sum(dP P)) row by row, dQ = dS K and
    dK = dS^T Q, both divided by sqrt(d). Heads that share keys and values stand below one another as more rows: what a
    key receives is then summed by the product itself. ``weigh`` computes P of S and what is kept of it, and P as the
    backward pass takes it, ``shares`` sum(dP P): for both there is another way.
    """
    named = layer.sides((x, *sides))
    (z,) = named.get("key_value", (x,))
    head = layer.channels(x.shape[1:])
    scale = 1.0 / sqrt(head)
    turn = _Rotation(layer, x, head)

    q = turn.forward(_heads(_projected(parameters, "query", x), layer.heads))
    k = turn.forward(_heads(_projected(parameters, "key", z), layer.groups))
    v = _heads(_projected(parameters, "value", z), layer.groups)

    shape = (len(x), layer.heads, x.shape[1], z.shape[1])  # [batch, head, query, key]
    scores = (_by_group(q, layer.groups) @ k.swapaxes(-1, -2)).reshape(shape) * scale
    if layer.position == "alibi":
        scores += alibi_bias(layer.heads, x.shape[1]).astype(x.dtype)
    kept = _kept(layer, named, shape)
    weights, again = weigh(scores, kept)
    dropped = scaled_mask(context, shape[1:], layer.dropout, len(x), x.dtype)
    used = weights if dropped is None else weights * dropped
    mixed = _by_group(used, layer.groups) @ v
    joined = _joined(mixed.reshape(*shape[:3], head))
    y = _projected(parameters, "output", joined)

    def backward(dy: Array) -> Gradients:
        gradients: dict[str, Array] = {}
        d_joined = _back(parameters, "output", joined, dy, gradients)
        d_mixed = _by_group(_heads(d_joined, layer.heads), layer.groups)
        d_used = (d_mixed @ v.swapaxes(-1, -2)).reshape(shape)
        used = again if dropped is None else again * dropped
        d_v = _by_group(used, layer.groups).swapaxes(-1, -2) @ d_mixed
        d_weights = d_used if dropped is None else d_used * dropped
        shared = shares(Flow(again, d_weights, mixed, d_mixed))
        context.kept(shared)
        d_scores = again * (d_weights - shared)
        d_scores = _by_group(d_scores * scale, layer.groups)
        d_q = turn.backward((d_scores @ k).reshape(q.shape))
        d_k = turn.backward(d_scores.swapaxes(-1, -2) @ _by_group(q, layer.groups))
        dx = _back(parameters, "query", x, _joined(d_q), gradients)
        dz = _back(parameters, "key", z, _joined(d_k), gradients)
        if layer.use_bias and not layer.key_bias_learns:
            gradients["key_bias"] = np.zeros_like(gradients["key_bias"])
        dz = dz + _back(parameters, "value", z, _joined(d_v), gradients)
        given = [dx, dz] if "key_value" in named else [dx + dz]
        return (*given, *(None for _ in named.get("mask", ()))), gradients

    return y, backward


def _projected(parameters: Parameters, name: str, x: Array) -> Array:
    y = x.reshape(-1, x.shape[-1]) @ parameters[name]
    if f"{name}_bias" in parameters:
        y += parameters[f"{name}_bias"]
    return y.reshape(*x.shape[:-1], -1)


def _back(parameters: Parameters, name: str, x: Array, dy: Array, gradients: dict[str, Array]) -> Array:
    """Return the gradient by ``x`` of a projection, and add those by its parameters."""
    rows = dy.reshape(-1, dy.shape[-1])
    gradients[name] = x.reshape(-1, x.shape[-1]).T @ rows
    if f"{name}_bias" in parameters:
        gradients[f"{name}_bias"] = sum_to_channel(dy)
    return (rows @ parameters[name].T).reshape(x.shape)


def _heads(x: Array, heads: int) -> Array:
    """``[batch, length, head * channel]`` to ``[batch, head, length, channel]``."""
    return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


def _joined(x: Array) -> Array:
    """``[batch, head, length, channel]`` to ``[batch, length, head * channel]``."""
    return np.ascontiguousarray(x.swapaxes(1, 2)).reshape(len(x), x.shape[2], -1)


def _by_group(x: Array, groups: int) -> Array:
    """``[batch, head, length, ...]`` to ``[batch, group, heads of the group * length, ...]``."""
    return x.reshape(len(x), groups, -1, x.shape[-1])


def _kept(layer: Attention, named: dict[str, tuple[Array, ...]], shape: tuple[int, ...]) -> Array | None:
    """Return what may be attended to, bool, to be stretched to ``[batch, head, query, key]``; None for all."""
    kept: Array | None = causal_mask(*shape[2:])[None, None] if layer.causal else None
    for mask in named.get("mask", ()):
        allowed = mask[:, None, None] != 0
        kept = allowed if kept is None else kept & allowed
    return kept


def _kept_weights(scores: Array, kept: Array | None) -> tuple[Array, Array]:
    weights = softmax(scores, kept)
    return weights, weights


def softmax(scores: Array, kept: Array | None) -> Array:
    """Softmax over the last axis of what is kept; zeros where nothing is."""
    if kept is not None:
        scores = np.where(kept, scores, np.finfo(scores.dtype).min)
    weights: Array = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights if kept is None else np.where(kept, weights, 0)


class _Rotation:
    """Turns pairs of channels by angles that grow with the position, or nothing without rotary positions."""

    def __init__(self, layer: Attention, x: Array, channels: int) -> None:
        self._layout = layer.rotary_layout if layer.position == "rotary" else None
        if self._layout is not None:
            angles = rotary_angles(x.shape[1], channels, layer.rotary_base)
            self._cos, self._sin = np.cos(angles).astype(x.dtype), np.sin(angles).astype(x.dtype)

    def forward(self, x: Array) -> Array:
        """``(a, b)`` becomes ``(a cos - b sin, b cos + a sin)``, for ``[..., length, channel]``."""
        return x if self._layout is None else self._turned(x, self._sin)

    def backward(self, dy: Array) -> Array:
        """Turn back: the transposed matrix is the inverse one."""
        return dy if self._layout is None else self._turned(dy, -self._sin)

    def _turned(self, x: Array, sin: Array) -> Array:
        half = x.shape[-1] // 2
        places = (slice(half), slice(half, None)) if self._layout == "half" else (slice(0, None, 2), slice(1, None, 2))
        a, b = x[..., places[0]], x[..., places[1]]
        y = np.empty_like(x)
        y[..., places[0]] = a * self._cos - b * sin
        y[..., places[1]] = b * self._cos + a * sin
        return y
