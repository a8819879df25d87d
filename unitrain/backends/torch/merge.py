"""Layers that join several inputs."""

from __future__ import annotations

import torch

from unitrain.backends.contract import Settings
from unitrain.backends.torch.registry import Made, implements
from unitrain.graph.graph import Node
from unitrain.spec.layers.merge import Add, Concatenate, Multiply


class Sum(torch.nn.Module):
    """Adds its inputs from left to right."""

    def forward(self, first: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        """Add ``[batch, ...]`` tensors; axes of size 1 stretch."""
        for other in others:
            first = first + other
        return first


class Product(torch.nn.Module):
    """Multiplies its inputs from left to right."""

    def forward(self, first: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        """Multiply ``[batch, ...]`` tensors; axes of size 1 stretch."""
        for other in others:
            first = first * other
        return first


class Concat(torch.nn.Module):
    """Joins its inputs along one axis."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Join ``[batch, ...]`` tensors."""
        return torch.cat(inputs, dim=self.dim)

    def extra_repr(self) -> str:
        """Show the axis, batch counted."""
        return f"dim={self.dim}"


@implements(Add)
def add(layer: Add, node: Node, settings: Settings) -> Made:
    """The sum."""
    return Made(Sum(), {})


@implements(Multiply)
def multiply(layer: Multiply, node: Node, settings: Settings) -> Made:
    """The product."""
    return Made(Product(), {})


@implements(Concatenate)
def concatenate(layer: Concatenate, node: Node, settings: Settings) -> Made:
    """Axes are counted without the batch in the spec."""
    return Made(Concat(layer.axis if layer.axis < 0 else layer.axis + 1), {})
