"""Layers along one axis."""

from __future__ import annotations

from collections.abc import Callable

import torch

from unitrain.backends.contract import Settings
from unitrain.backends.torch.registry import Made, implements
from unitrain.backends.torch.runtime import widened
from unitrain.graph.node import Node
from unitrain.spec.layers.axis import (
    Gather,
    MaskedReduction,
    Maximum,
    Mean,
    Reduction,
    Select,
    Slice,
    Split,
    Stack,
    Sum,
)


class Taken(torch.nn.Module):
    """Positions of one axis; of a single ``index`` the axis goes."""

    def __init__(self, dim: int, positions: range | int) -> None:
        super().__init__()
        self.dim, self.positions = dim, positions

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Take them of ``[batch, ...]``."""
        if isinstance(self.positions, int):
            return x.select(self.dim, self.positions)
        places = self.positions
        return x[(slice(None),) * self.dim + (slice(places.start, places.stop, places.step),)]


class Chosen(torch.nn.Module):
    """Positions of the first axis by their numbers."""

    def forward(self, x: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        """Choose from ``[batch, length, ...]`` by ``[batch, count]``; gradients of equal ones add up in float32."""
        places = indices.long().reshape(*indices.shape, *(1,) * (x.ndim - 2))
        # Not `take_along_dim`: its broadcasting would fix the size of the batch in an exported program.
        return widened(x).gather(1, places.expand(-1, -1, *x.shape[2:])).to(x.dtype)


class Stacked(torch.nn.Module):
    """Its inputs along a new axis."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Put ``[batch, ...]`` tensors side by side."""
        return torch.stack(inputs, self.dim)


class Reduced(torch.nn.Module):
    """Reduces one axis, in 16 bits in float32; ``view`` is the shape in which a mask stretches over a sample."""

    def __init__(self, kind: str, dim: int, keep: bool, view: tuple[int, ...]) -> None:
        super().__init__()
        self.kind, self.dim, self.keep, self.view = kind, dim, keep, view
        self._reduce: Callable[..., torch.Tensor] = {"sum": _sum, "mean": _mean, "max": _max}[kind]

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Reduce ``[batch, ...]``."""
        kept = None if mask is None else (mask != 0).view(len(x), *self.view)
        return self._reduce(widened(x), self.dim, self.keep, kept).to(x.dtype)


def _sum(x: torch.Tensor, dim: int, keep: bool, kept: torch.Tensor | None) -> torch.Tensor:
    return x.sum(dim, keepdim=keep)


def _mean(x: torch.Tensor, dim: int, keep: bool, kept: torch.Tensor | None) -> torch.Tensor:
    if kept is None:
        return x.mean(dim, keepdim=keep)
    share = kept.to(x.dtype) / kept.sum(dim, keepdim=True).clamp(min=1).to(x.dtype)
    return (x * share).sum(dim, keepdim=keep)


def _max(x: torch.Tensor, dim: int, keep: bool, kept: torch.Tensor | None) -> torch.Tensor:
    # max(dim) gives the gradient to one element, the first; amax would share it out.
    if kept is None:
        return x.max(dim, keepdim=keep).values
    y = x.masked_fill(~kept, -torch.inf).max(dim, keepdim=True).values
    y = torch.where(kept.any(dim, keepdim=True), y, 0.0)
    return y if keep else y.squeeze(dim)


@implements(Slice, Split, Select)
def take(layer: Slice | Split | Select, node: Node, settings: Settings) -> Made:
    """A view."""
    shape = node.input_shapes[0]
    positions = layer.index if isinstance(layer, Select) else layer.positions(shape)
    return Made(Taken(layer.axis % len(shape) + 1, positions), {})


@implements(Gather)
def gather(layer: Gather, node: Node, settings: Settings) -> Made:
    """torch's own function."""
    return Made(Chosen(), {})


@implements(Stack)
def stack(layer: Stack, node: Node, settings: Settings) -> Made:
    """torch's own function."""
    return Made(Stacked(layer.axis % len(node.output_shape) + 1), {})


@implements(Sum, Mean, Maximum)
def reduce(layer: Reduction, node: Node, settings: Settings) -> Made:
    """torch's own functions, and arithmetic with the mask."""
    shape = node.input_shapes[0]
    view = layer.mask_view(shape) if isinstance(layer, MaskedReduction) else ()
    return Made(Reduced(layer.type, layer.axis % len(shape) + 1, layer.keep_axis, view), {})
