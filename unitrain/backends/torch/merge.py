"""Layers that join several inputs."""

from __future__ import annotations

import torch

from unitrain.backends.contract import Settings
from unitrain.backends.torch.registry import Made, implements
from unitrain.backends.torch.runtime import widened
from unitrain.graph.node import Node
from unitrain.spec.layers.merge import Add, Concatenate, Divide, Multiply, Subtract


class Sum(torch.nn.Module):
    """Adds its inputs from left to right."""

    rectifies = takes_first = True

    def forward(
        self, x: torch.Tensor, *others: torch.Tensor, rectify: bool = False, first: bool = False
    ) -> torch.Tensor:
        """Add ``[batch, ...]`` tensors; axes of size 1 stretch. For ``rectify`` and ``first`` see `way.Step`."""
        for other in others:
            x = x + other
        return x if not rectify else x.relu_() if others else x.relu()


class Product(torch.nn.Module):
    """Multiplies its inputs from left to right."""

    def forward(self, first: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        """Multiply ``[batch, ...]`` tensors; axes of size 1 stretch."""
        for other in others:
            first = first * other
        return first


class Difference(torch.nn.Module):
    """Takes its second input from the first."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Subtract ``[batch, ...]`` tensors; axes of size 1 stretch."""
        return a - b


class Quotient(torch.nn.Module):
    """Divides its first input by the second, in float32 where the numbers have 16 bits."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Divide ``[batch, ...]`` tensors; axes of size 1 stretch."""
        return (widened(a) / widened(b)).to(a.dtype)


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


@implements(Subtract)
def subtract(layer: Subtract, node: Node, settings: Settings) -> Made:
    """The difference."""
    return Made(Difference(), {})


@implements(Divide)
def divide(layer: Divide, node: Node, settings: Settings) -> Made:
    """The quotient."""
    return Made(Quotient(), {})


@implements(Concatenate)
def concatenate(layer: Concatenate, node: Node, settings: Settings) -> Made:
    """Axes are counted without the batch in the spec."""
    return Made(Concat(layer.axis if layer.axis < 0 else layer.axis + 1), {})
