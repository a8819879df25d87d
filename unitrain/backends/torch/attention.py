"""Attention of several heads: torch's ``scaled_dot_product_attention`` between four ``nn.Linear``."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import torch
from torch.nn import functional

from unitrain.backends.contract import Settings
from unitrain.backends.tables import alibi_bias, causal_mask, rotary_angles
from unitrain.backends.torch.dense import LINEAR
from unitrain.backends.torch.dropout import make_dropout, shared_dropout
from unitrain.backends.torch.registry import Made, Slot, implements
from unitrain.graph.node import Node
from unitrain.spec.layers.attention import Attention
from unitrain.spec.layers.base import Shape


class MultiHeadAttention(torch.nn.Module):
    """Attention over ``[batch, length, channel]``.

    Parameters
    ----------
    layer
        What to compute.
    shapes
        Of the inputs, side inputs last, batch left out.
    dropout
        Applied to the attention weights in training.
    """

    cos: torch.Tensor
    sin: torch.Tensor
    bias: torch.Tensor | None
    causal: torch.Tensor | None

    def __init__(self, layer: Attention, shapes: tuple[Shape, ...], dropout: torch.nn.Module | None) -> None:
        super().__init__()
        self._sides: Callable[..., dict[str, tuple[torch.Tensor, ...]]] = layer.sides
        self.heads, self.groups = layer.heads, layer.groups
        self.is_causal = layer.causal
        self.key_bias_learns = layer.key_bias_learns
        self.layout = layer.rotary_layout if layer.position == "rotary" else None
        table = layer.parameters(*shapes)
        self.query, self.key, self.value, self.output = (
            torch.nn.Linear(*_sizes(table[name].shape), layer.use_bias) for name in ("query", "key", "value", "output")
        )
        self.dropout = dropout
        self._add_tables(layer, shapes)

    def _add_tables(self, layer: Attention, shapes: tuple[Shape, ...], least: tuple[int, int] = (0, 0)) -> None:
        """Add what positions decide, for ``least`` queries and keys or more; shorter inputs take the first rows."""
        keys = max(layer.sides(shapes).get("key_value", shapes)[0][0], least[1])
        length = max(shapes[0][0], least[0])
        self._longest = (length, keys)
        if self.layout is not None:
            angles = torch.from_numpy(rotary_angles(length, layer.channels(*shapes), layer.rotary_base))
            self.register_buffer("cos", angles.cos(), persistent=False)
            self.register_buffer("sin", angles.sin(), persistent=False)
        alibi = layer.position == "alibi"
        bias = torch.from_numpy(alibi_bias(layer.heads, length)) if alibi else None
        self.register_buffer("bias", bias, persistent=False)
        causal = torch.from_numpy(causal_mask(length, keys)) if layer.causal else None
        self.register_buffer("causal", causal, persistent=False)

    def share(self, layer: Attention, node: Node, settings: Settings) -> None:
        """Be the module of another node too, whose inputs may be longer."""
        self._add_tables(layer, node.input_shapes, self._longest)
        if self.dropout is not None:
            self.dropout = shared_dropout(self.dropout, layer.dropout, node, settings)

    def forward(self, x: torch.Tensor, *sides: torch.Tensor) -> torch.Tensor:
        """Attend; ``sides`` are what gives keys and values, and the mask, as far as the layer has them."""
        named = self._sides((x, *sides))
        (z,) = named.get("key_value", (x,))
        query, key, value = self._joined(x) if self.training and z is x and self._joins(x) else self._apart(x, z)
        q = self._turned(self._heads(query, self.heads))
        k = self._turned(self._heads(key, self.groups))
        v = self._heads(value, self.groups)
        mask = next((mask[:, None, None] != 0 for mask in named.get("mask", ())), None)
        if self.dropout is not None and self.training:
            mixed = self._explicit(q, k, v, mask)
        else:
            mixed = self._fused(q, k, v, mask)
        y: torch.Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return y

    def _apart(self, x: torch.Tensor, z: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return queries of ``x``, keys and values of ``z``: ``[batch, length, channel]``."""
        return self.query(x), functional.linear(z, self.key.weight, self._key_bias()), self.value(z)

    @staticmethod
    def _joins(x: torch.Tensor) -> bool:
        """Whether joined weights, ``[output, channel]``, are no larger than what comes out."""
        batch, length, channel = x.shape
        return batch * length >= channel

    def _joined(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return all three of ``x`` by one product, and one for each gradient."""
        weights = [self.query.weight, self.key.weight, self.value.weight]
        biases = [self.query.bias, self._key_bias(), self.value.bias]
        bias = torch.cat([bias for bias in biases if bias is not None]) if self.query.bias is not None else None
        together = functional.linear(x, torch.cat(weights), bias)
        return together.split_with_sizes([len(weight) for weight in weights], -1)

    def _key_bias(self) -> torch.Tensor | None:
        bias: torch.Tensor | None = self.key.bias
        if bias is None or self.key_bias_learns:
            return bias
        # The same number, and a gradient of zero.
        return bias.detach() + 0.0 * bias

    def _fused(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        # torch's causal mask goes without one of ours; a mask and a bias are added to one another.
        allowed = self._allowed(mask, q, k)
        bias = None if self.bias is None else self.bias[:, : q.shape[2], : k.shape[2]].to(q.dtype)
        if bias is not None and allowed is not None:
            bias = bias.masked_fill(~allowed, -torch.inf)
        attended = bias if bias is not None else allowed
        plain = self.is_causal and mask is None and bias is None and q.shape[2] == k.shape[2]
        return functional.scaled_dot_product_attention(
            q, k, v, None if plain else attended, is_causal=plain, enable_gqa=self.groups != self.heads
        )

    def _explicit(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        shared = self.heads // self.groups
        k, v = k.repeat_interleave(shared, 1), v.repeat_interleave(shared, 1)
        scores = q @ k.transpose(-1, -2) * (1.0 / sqrt(q.shape[-1]))
        if self.bias is not None:
            scores = scores + self.bias[:, : q.shape[2], : k.shape[2]].to(q.dtype)
        allowed = self._allowed(mask, q, k)
        if allowed is not None:
            scores = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
        weights = scores.softmax(-1)
        weights = weights if mask is None or allowed is None else weights.masked_fill(~allowed, 0.0)
        assert self.dropout is not None
        mixed: torch.Tensor = self.dropout(weights) @ v
        return mixed

    def _allowed(self, mask: torch.Tensor | None, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor | None:
        if self.causal is None:
            return mask
        causal = self.causal[: q.shape[2], : k.shape[2]]
        return causal if mask is None else causal & mask

    @staticmethod
    def _heads(x: torch.Tensor, heads: int) -> torch.Tensor:
        return x.view(*x.shape[:2], heads, -1).transpose(1, 2)

    def _turned(self, x: torch.Tensor) -> torch.Tensor:
        """Turn pairs of channels by the angles of their positions."""
        if self.layout is None:
            return x
        cos, sin = (table[: x.shape[2]].to(x.dtype) for table in (self.cos, self.sin))
        if self.layout == "half":
            a, b = x.chunk(2, -1)
            return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)
        a, b = x[..., 0::2], x[..., 1::2]
        return torch.stack([a * cos - b * sin, b * cos + a * sin], -1).flatten(-2)


def _sizes(shape: Shape) -> tuple[int, int]:
    inward, outward = shape
    return inward, outward


@implements(Attention)
def attention(layer: Attention, node: Node, settings: Settings) -> Made:
    """torch's fused attention; its parts where dropout has to draw the project's masks."""
    dropout = make_dropout(layer.dropout, node, settings) if layer.dropout else None
    module = MultiHeadAttention(layer, node.input_shapes, dropout)
    slots = {}
    for local in layer.parameters(*node.input_shapes):
        name = local.removesuffix("_bias")
        slots[local] = Slot(f"{name}.bias") if local != name else Slot(f"{name}.weight", LINEAR)
    return Made(module, slots)
