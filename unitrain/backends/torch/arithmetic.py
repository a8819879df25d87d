"""Arithmetic with constants, and products of matrices."""

from __future__ import annotations

import torch

from unitrain.backends.contract import Settings
from unitrain.backends.torch.registry import Made, implements
from unitrain.graph.node import Node
from unitrain.spec.layers.arithmetic import Matmul, Power, Scale, Shift


class Constant(torch.nn.Module):
    """One operation with a number."""

    def __init__(self, number: float) -> None:
        super().__init__()
        self.number = number

    def extra_repr(self) -> str:
        """Show the number."""
        return f"{self.number}"


class Scaled(Constant):
    """Times a number."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply ``[batch, ...]``."""
        return x * self.number


class Shifted(Constant):
    """Plus a number."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add to ``[batch, ...]``."""
        return x + self.number


class Powered(Constant):
    """To the power of a number."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Raise ``[batch, ...]``."""
        y: torch.Tensor = x**self.number
        return y


class MatrixProduct(torch.nn.Module):
    """Product of two matrices, of which the second may be transposed."""

    def __init__(self, transpose: bool) -> None:
        super().__init__()
        self.transpose = transpose

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Multiply ``[batch, ..., m, k]`` by ``[batch, ..., k, n]``."""
        return a @ (b.transpose(-1, -2) if self.transpose else b)


@implements(Scale)
def scale(layer: Scale, node: Node, settings: Settings) -> Made:
    """A product."""
    return Made(Scaled(layer.factor), {})


@implements(Shift)
def shift(layer: Shift, node: Node, settings: Settings) -> Made:
    """A sum."""
    return Made(Shifted(layer.amount), {})


@implements(Power)
def power(layer: Power, node: Node, settings: Settings) -> Made:
    """A power."""
    return Made(Powered(layer.exponent), {})


@implements(Matmul)
def matmul(layer: Matmul, node: Node, settings: Settings) -> Made:
    """torch's own product."""
    return Made(MatrixProduct(layer.transpose_second), {})
