"""torch's fused Adam, corrected by hand, against the rule every backend shares, step by step in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from unitrain.backends.torch.update import Updates
from unitrain.spec.optimizers import Adam, AdamW, Optimizer
from unitrain.train.update import Update

DECAYS = {"kernel": True, "bias": False}


class ByRule(Update):
    """The same update, of a class whose numbers a kernel must not take for granted."""


def make(updater: Update) -> Updates:
    generator = np.random.default_rng(4)
    values = {"kernel": generator.normal(size=(5, 3)), "bias": generator.normal(size=3)}
    parameters = {name: torch.tensor(value, requires_grad=True) for name, value in values.items()}
    slots = {
        slot: {
            name: p.detach().clone() if slot == "ema" else torch.zeros_like(p).detach()
            for name, p in parameters.items()
        }
        for slot in updater.slots
    }
    return Updates(updater, parameters, slots)


def numbers(updates: Updates) -> dict[str, Any]:
    tensors = {"parameter": updates.parameters, **updates.slots}
    return {
        f"{kind} {name}": tensor.detach().numpy() for kind, named in tensors.items() for name, tensor in named.items()
    }


@pytest.mark.parametrize("flagged", [False, True])
@pytest.mark.parametrize(
    "spec",
    [
        Adam(lr=0.05),
        Adam(lr=0.05, beta1=0.5, beta2=0.7, epsilon=0.1),
        Adam(lr=0.05, l2=0.3),
        Adam(lr=0.05, clip_value=0.5),
        Adam(lr=0.05, clip_norm=0.7),
        Adam(lr=0.05, l2=0.3, clip_value=0.5, clip_norm=0.7, ema=0.9),
        AdamW(lr=0.05, weight_decay=0.2),
        AdamW(lr=0.05, weight_decay=0.2, decay_all=True, ema=0.5, clip_norm=1.0),
    ],
    ids=str,
)
def test_fused_adam_is_the_rule(spec: Optimizer, flagged: bool) -> None:
    fused, ruled = make(Update(spec, DECAYS)), make(ByRule(spec, DECAYS))
    assert fused.fused
    assert not ruled.fused
    coefficients = fused.updater.coefficients(np.array([0.05, 0.02, 0.04, 0.01]), 0)
    generator = np.random.default_rng(5)
    for updates in (fused, ruled):
        updates.begin(coefficients)
    for step in range(4):
        gradients = [torch.tensor(generator.normal(size=shape)) for shape in ((5, 3), (3,))]
        # Convolutions give gradients in another memory order.
        gradients[0] = gradients[0].t().contiguous().t()
        known = [gradient.clone() for gradient in gradients]
        keep = torch.tensor(step != 2) if flagged else None
        before = {name: array.copy() for name, array in numbers(fused).items()}
        with torch.no_grad():
            for updates in (fused, ruled):
                updates.apply(gradients, step, keep)
        assert all(torch.equal(a, b) for a, b in zip(gradients, known, strict=True))
        after, expected = numbers(fused), numbers(ruled)
        for name, array in expected.items():
            np.testing.assert_allclose(after[name], array, rtol=1e-12, atol=1e-14, err_msg=name)
            if flagged and step == 2:
                np.testing.assert_array_equal(after[name], before[name])
            elif name.startswith("parameter"):
                assert np.abs(after[name] - before[name]).max() > 1e-4
