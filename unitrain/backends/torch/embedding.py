"""Embedding tables."""

from __future__ import annotations

import torch

from unitrain.backends.contract import Settings
from unitrain.backends.torch.registry import Made, Slot, implements
from unitrain.graph.node import Node
from unitrain.spec.layers.embedding import Embedding


class EmbeddingPerPosition(torch.nn.Embedding):
    """``nn.Embedding`` with a table for each position of the last axis, one below the other."""

    starts: torch.Tensor

    def __init__(self, tables: int, vocabulary: int, width: int) -> None:
        super().__init__(tables * vocabulary, width)
        self.register_buffer("starts", vocabulary * torch.arange(tables), persistent=False)

    def forward(self, index: torch.Tensor) -> torch.Tensor:
        """Look up ``[batch, ..., position]``: ``[batch, ..., position, width]``."""
        return super().forward(index + self.starts)


@implements(Embedding)
def embedding(layer: Embedding, node: Node, settings: Settings) -> Made:
    """torch's own ``nn.Embedding``."""
    if layer.table_per_position:
        module = EmbeddingPerPosition(layer.tables(*node.input_shapes), layer.vocabulary, layer.width)
        return Made(module, {"table": Slot("weight")})
    return Made(torch.nn.Embedding(layer.vocabulary, layer.width), {"table": Slot("weight")})
