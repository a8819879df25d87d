"""Windows over channel-last tensors: seen as channels_last ones by a view, padded first where torch cannot do it."""

from __future__ import annotations

import torch
from torch.nn import functional

from unitrain.spec.layers.conv import WindowedLayer
from unitrain.spec.layers.window import PadAmounts


def channels_first(x: torch.Tensor) -> torch.Tensor:
    """See ``[batch, *spatial, channel]`` as ``[batch, channel, *spatial]``: no copy, channels_last in memory."""
    return x.movedim(-1, 1)


def channels_last(x: torch.Tensor) -> torch.Tensor:
    """See ``[batch, channel, *spatial]`` as ``[batch, *spatial, channel]``."""
    return x.movedim(1, -1)


def pads_of(layer: WindowedLayer, x: torch.Tensor) -> PadAmounts:
    """Return (before, after) for each spatial axis of ``[batch, *spatial, channel]``.

    They follow from the tensor and not from the node: a shared layer may see inputs of several sizes.
    """
    return layer.pads(tuple(x.shape[1:]))


def symmetric(pads: PadAmounts) -> tuple[int, ...] | None:
    """Return the padding of each axis if it is the same on both sides, as torch's own is; None otherwise."""
    return tuple(start for start, _ in pads) if all(start == end for start, end in pads) else None


def in_torch_order(pads: PadAmounts) -> list[int]:
    """Return amounts in the order of ``torch.nn.functional.pad``: last axis first."""
    return [amount for pair in reversed(pads) for amount in pair]


def padded(x: torch.Tensor, pads: PadAmounts, value: float = 0.0) -> torch.Tensor:
    """Pad the spatial axes of ``[batch, channel, *spatial]``; no copy where there is nothing to pad."""
    if not any(map(any, pads)):
        return x
    return functional.pad(x, in_torch_order(pads), value=value)
