"""Dropout: with the project's masks in deterministic mode, else torch's own."""

from __future__ import annotations

from typing import Any

import torch

from unitrain.backends.contract import Settings
from unitrain.backends.torch.registry import Made, implements
from unitrain.graph.graph import Node
from unitrain.spec.layers.dropout import Dropout
from unitrain.weights.random import keep_threshold, mask_key, threefry

_MASK = 0xFFFFFFFF


class _Words:
    """32-bit words in int64 tensors, `unitrain.weights.random.WordNamespace`."""

    def add(self, x: Any, y: Any) -> Any:
        return (x + y) & _MASK

    def xor(self, x: Any, y: Any) -> Any:
        return x ^ y

    def rotate_left(self, x: Any, bits: int) -> Any:
        return ((x << bits) | (x >> (32 - bits))) & _MASK


class CounterDropout(torch.nn.Module):
    """Dropout whose mask is a function of seed, layer, step and element: see `keep_mask`.

    ``step`` counts the training batches; a program sets it, otherwise each call in training mode adds one.
    """

    def __init__(self, rate: float, key: tuple[int, int]) -> None:
        super().__init__()
        self.rate, self.key, self.step = rate, key, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Drop elements of ``x`` in training mode."""
        if not self.training or self.rate == 0.0:
            return x
        half = -(-x.numel() // 2)
        element = torch.arange(half, dtype=torch.int64, device=x.device)
        first, second = threefry(_Words(), self.key, (element, torch.full_like(element, self.step % 2**32)))
        self.step += 1
        words = torch.cat([first, second])[: x.numel()]
        keep = (words >= keep_threshold(self.rate)).reshape(x.shape)
        return torch.where(keep, x * (1.0 / (1.0 - self.rate)), 0.0)

    def extra_repr(self) -> str:
        """Show the rate, as torch's modules do."""
        return f"rate={self.rate}"


@implements(Dropout)
def dropout(layer: Dropout, node: Node, settings: Settings) -> Made:
    """Choose by the settings."""
    if settings.deterministic:
        return Made(CounterDropout(layer.rate, mask_key(settings.seed, "dropout", node.name)), {})
    return Made(torch.nn.Dropout(layer.rate), {})
