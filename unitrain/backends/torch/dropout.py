"""Layers that leave something out in training: with the project's masks in deterministic mode, else torch's own."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch.nn import functional

from unitrain.backends.contract import Settings
from unitrain.backends.torch.registry import Made, implements
from unitrain.graph.node import Node
from unitrain.spec.layers.dropout import Dropout, StochasticDepth
from unitrain.weights.random import keep_threshold, mask_key, threefry

_SIGN = 2**31
# Masks are drawn for several steps at once up to this many elements: small ones cost little more than the calls.
_AHEAD = 2**17


class _Words:
    """32-bit words as int32 tensors, whose sums wrap: `unitrain.weights.random.WordNamespace`.

    A tensor given first to ``xor`` is overwritten; `threefry` only gives it the result of a rotation there.
    """

    def add(self, x: Any, y: Any) -> Any:
        return x + (_signed(y) if isinstance(y, int) else y)

    def xor(self, x: Any, y: Any) -> Any:
        return x.bitwise_xor_(y)

    def rotate_left(self, x: Any, bits: int) -> Any:
        # int32 shifts its sign in from the left: the mask takes it out again.
        low = (x >> (32 - bits)).bitwise_and_((1 << bits) - 1)
        return low.bitwise_or_(x << bits)


def _signed(word: int) -> int:
    """Return the int32 that has the bits of a 32-bit word."""
    return (word + _SIGN) % 2**32 - _SIGN


def keep_masks(
    key: tuple[int, int], first_step: int | torch.Tensor, steps: int, size: int, rate: float, device: torch.device
) -> torch.Tensor:
    """Return `unitrain.weights.random.keep_mask` for ``steps`` steps on the device: bool ``[steps, size]``.

    ``first_step`` may be known to the device alone.
    """
    half = -(-size // 2)
    element = torch.arange(half, dtype=torch.int32, device=device).expand(steps, half)
    step = (first_step + torch.arange(steps, device=device)).to(torch.int32)[:, None].expand(steps, half)
    words = torch.cat(threefry(_Words(), key, (element, step)), dim=1)[:, :size]
    # With the sign turned over, int32 has the order of the unsigned words.
    return (words ^ -_SIGN) >= keep_threshold(rate) - _SIGN


class CounterDropout(torch.nn.Dropout):
    """``nn.Dropout`` whose mask is a function of seed, layer, step and element: see `keep_mask`.

    ``step`` counts the batches seen in training mode from 0: each call adds one. A program sets it before each call, to
    an int64 tensor ``[]`` where steps are recorded.
    With ``whole`` a sample is dropped or kept as one.
    """

    def __init__(self, rate: float, key: tuple[int, int], *, whole: bool = False) -> None:
        super().__init__(rate)
        self.key, self.whole = key, whole
        self.step: int | torch.Tensor = 0
        self._masks: torch.Tensor | None = None
        self._drawn: tuple[Any, ...] = ()
        self._first = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Drop elements of ``x`` in training mode."""
        if not self.training or self.p == 0.0:
            return x
        shape = _one_a_sample(x) if self.whole else tuple(x.shape)
        keep = self._mask(prod(shape), x.device).view(shape)
        self.step = self.step + 1
        return torch.where(keep, x * (1.0 / (1.0 - self.p)), 0.0)

    def _mask(self, size: int, device: torch.device) -> torch.Tensor:
        """Return the mask of this step ``[size]``, drawn with those of the next steps."""
        if isinstance(self.step, torch.Tensor):
            return keep_masks(self.key, self.step, 1, size, self.p, device)[0]
        wanted = (size, device, self.p, self.key, torch.is_inference_mode_enabled())
        ahead = self.step - self._first
        if self._masks is None or self._drawn != wanted or not 0 <= ahead < len(self._masks):
            steps = max(1, _AHEAD // max(1, size))
            self._masks = keep_masks(self.key, self.step, steps, size, self.p, device)
            self._drawn, self._first, ahead = wanted, self.step, 0
        return self._masks[ahead]


class DropoutsInTurn(torch.nn.ModuleList):
    """The dropouts of the nodes that share a layer: each has its own masks, and each call of a pass is the next node's.

    A program sets ``turn`` to 0 before each pass.
    """

    turn = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Drop elements of ``x`` in training mode."""
        dropped: torch.Tensor = self[self.turn](x)
        self.turn = (self.turn + 1) % len(self)
        return dropped


class WholeDropout(torch.nn.Dropout):
    """``nn.Dropout`` that drops or keeps a sample as one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Drop samples of ``[batch, ...]`` in training mode."""
        if not self.training or self.p == 0.0:
            return x
        return x * functional.dropout(x.new_ones(_one_a_sample(x)), self.p)


def _one_a_sample(x: torch.Tensor) -> tuple[int, ...]:
    """Return the shape of one number a sample, which stretches over ``x``."""
    return (x.shape[0], *(1,) * (x.ndim - 1))


@implements(Dropout, StochasticDepth)
def dropout(layer: Dropout | StochasticDepth, node: Node, settings: Settings) -> Made:
    """Choose by the settings."""
    return Made(make_dropout(layer.rate, node, settings, whole=isinstance(layer, StochasticDepth)), {})


def make_dropout(rate: float, node: Node, settings: Settings, *, whole: bool = False) -> torch.nn.Module:
    """Make the dropout of a node: of the project's masks in deterministic mode, else torch's own."""
    if settings.deterministic:
        return CounterDropout(rate, mask_key(settings.seed, "dropout", node.name), whole=whole)
    return WholeDropout(rate) if whole else torch.nn.Dropout(rate)


def shared_dropout(first: torch.nn.Module, rate: float, node: Node, settings: Settings) -> torch.nn.Module:
    """Return the dropout of a layer that ``node`` shares too, given that of the nodes before it."""
    if not settings.deterministic:
        return first
    known = [*first] if isinstance(first, DropoutsInTurn) else [first]
    return DropoutsInTurn([*known, make_dropout(rate, node, settings)])
