"""How alike two vectors are. In 16 bits in float32."""

from __future__ import annotations

import torch

from unitrain.backends.contract import Settings
from unitrain.backends.torch.registry import Made, implements
from unitrain.backends.torch.runtime import widened
from unitrain.graph.node import Node
from unitrain.spec.layers.similarity import Cosine, Dot


class InnerProduct(torch.nn.Module):
    """Inner products of the vectors on the last axis."""

    def __init__(self, keep: bool) -> None:
        super().__init__()
        self.keep = keep

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Multiply ``[batch, ..., channel]`` tensors; axes of size 1 stretch."""
        return (widened(a) * widened(b)).sum(-1, keepdim=self.keep).to(a.dtype)


class CosineSimilarity(InnerProduct):
    """Inner products of vectors of length one.

    torch's own function lets the gradient through a norm that is below epsilon.
    """

    def __init__(self, keep: bool, eps: float) -> None:
        super().__init__(keep)
        self.eps = eps

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Compare ``[batch, ..., channel]`` tensors; axes of size 1 stretch."""
        return super().forward(self._unit(widened(a)), self._unit(widened(b))).to(a.dtype)

    def _unit(self, x: torch.Tensor) -> torch.Tensor:
        return x / (x * x).sum(-1, keepdim=True).clamp(min=self.eps**2).sqrt()


@implements(Dot)
def dot(layer: Dot, node: Node, settings: Settings) -> Made:
    """The sum of the products."""
    return Made(InnerProduct(layer.keep_axis), {})


@implements(Cosine)
def cosine(layer: Cosine, node: Node, settings: Settings) -> Made:
    """The same of unit vectors."""
    return Made(CosineSimilarity(layer.keep_axis, layer.epsilon), {})
