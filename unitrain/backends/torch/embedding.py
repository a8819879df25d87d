"""Embedding tables."""

from __future__ import annotations

import torch

from unitrain.backends.contract import Settings
from unitrain.backends.torch.registry import Made, Slot, implements
from unitrain.graph.graph import Node
from unitrain.spec.layers.embedding import Embedding


@implements(Embedding)
def embedding(layer: Embedding, node: Node, settings: Settings) -> Made:
    """torch's own ``nn.Embedding``."""
    return Made(torch.nn.Embedding(layer.vocabulary, layer.width), {"table": Slot("weight")})
