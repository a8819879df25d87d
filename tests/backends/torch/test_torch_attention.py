"""Query, key and value by one product, as in training, are those of three."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unitrain.backends.contract import Settings
from unitrain.backends.torch.attention import MultiHeadAttention
from unitrain.backends.torch.module import GraphModule
from unitrain.graph.resolve import resolve
from unitrain.spec.model import ModelSpec
from unitrain.weights.initialize import initialize

CHANNELS = 12


def module(**options):
    layer = {"type": "attention", "name": "attention", "heads": 4, **options}
    graph = resolve(ModelSpec.model_validate({"inputs": {"x": {"shape": [5, CHANNELS]}}, "layers": [layer]}))
    return GraphModule(graph, initialize(graph, 0), Settings(precision="float64")).train()


def found(model, x):
    """Return output and gradients: by the input, and by all parameters."""
    x = x.clone().requires_grad_()
    y = model(x)
    return [y, *torch.autograd.grad((y * y.detach().cos()).sum(), [x, *model.parameters()])]


@pytest.mark.parametrize("options", [{}, {"key_value_heads": 2, "head_width": 6}, {"use_bias": False}], ids=str)
def test_one_product_gives_what_three_give(options, monkeypatch):
    model = module(**options)
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 5, CHANNELS)))
    joined = found(model, x)
    monkeypatch.setattr(MultiHeadAttention, "_joins", staticmethod(lambda x: False))
    for one, three in zip(joined, found(model, x), strict=True):
        assert torch.allclose(one, three, rtol=1e-12, atol=1e-14)


def test_weights_are_joined_where_they_are_no_larger_than_what_they_give(monkeypatch):
    calls = []
    joined = MultiHeadAttention._joined
    monkeypatch.setattr(MultiHeadAttention, "_joined", lambda self, x: calls.append(x.shape) or joined(self, x))
    model = module()
    model(torch.zeros(2, 5, CHANNELS, dtype=torch.float64))  # 10 positions, 12 channels
    assert not calls
    model(torch.zeros(3, 5, CHANNELS, dtype=torch.float64))
    assert len(calls) == 1
    model.eval()(torch.zeros(3, 5, CHANNELS, dtype=torch.float64))
    assert len(calls) == 1
