"""TensorFlow's kernels for Adam, put together by hand, against the rule every backend shares, step by step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from unitrain.backends.keras import update as update_module
from unitrain.backends.keras.update import Updates
from unitrain.spec.optimizers import Adam, AdamW, Optimizer
from unitrain.train.update import Update

DECAYS = {"kernel": True, "bias": False, "other": True}
SHAPES = {"kernel": (5, 3), "bias": (3,), "other": (5, 3)}


class ByRule(Update):
    """The same update, of a class whose numbers a kernel must not take for granted."""


def make(updater: Update, dtype: str) -> Updates:
    generator = np.random.default_rng(4)
    parameters = {name: tf.Variable(generator.normal(size=shape).astype(dtype)) for name, shape in SHAPES.items()}
    slots = {
        slot: {name: tf.Variable(p if slot == "ema" else tf.zeros_like(p)) for name, p in parameters.items()}
        for slot in updater.slots
    }
    return Updates(updater, parameters, slots)


def numbers(updates: Updates) -> dict[str, Any]:
    groups = {"parameter": updates.parameters, **updates.slots}
    return {f"{kind} {name}": v.numpy() for kind, named in groups.items() for name, v in named.items()}


@pytest.mark.parametrize("smallest", [0, 5, 1000], ids=["kernel", "kernel but for the bias", "no kernel"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 4e-7)])
@pytest.mark.parametrize(
    "spec",
    [
        Adam(lr=0.05),
        Adam(lr=0.05, beta1=0.5, beta2=0.7, epsilon=0.1),
        Adam(lr=0.05, l2=0.3),
        Adam(lr=0.05, l2=0.3, clip_value=0.5, clip_norm=0.7, ema=0.9),
        AdamW(lr=0.05, weight_decay=0.2),
        AdamW(lr=0.05, weight_decay=0.2, decay_all=True, ema=0.5, clip_norm=1.0),
    ],
    ids=str,
)
def test_adam_by_kernels_is_the_rule(
    spec: Optimizer, dtype: str, tolerance: float, smallest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(update_module, "KERNEL_ELEMENTS", smallest)
    fused, ruled = make(Update(spec, DECAYS), dtype), make(ByRule(spec, DECAYS), dtype)
    assert fused.fused
    assert not ruled.fused
    coefficients = fused.updater.coefficients(np.array([0.05, 0.02, 0.04, 0.01]), 0).astype(dtype)
    generator = np.random.default_rng(5)
    for row in coefficients:
        gradients = {name: tf.constant(generator.normal(size=shape).astype(dtype)) for name, shape in SHAPES.items()}
        for updates in (fused, ruled):
            updates.apply(gradients, tf.constant(row))
        found = numbers(fused)
        for name, expected in numbers(ruled).items():
            # Where numbers cancel, what is left of a sum has the error of its terms, which are about 1.
            np.testing.assert_allclose(found[name], expected, rtol=tolerance, atol=tolerance / 4, err_msg=name)


def test_the_average_of_squares_is_as_exact_as_float32() -> None:
    """TensorFlow's kernel alone would be 1.3e-5 off after one step: it takes 1 - b2 of a rounded b2."""
    updates = make(Update(Adam(), DECAYS), "float32")
    gradients = {name: tf.fill(shape, tf.constant(0.3)) for name, shape in SHAPES.items()}
    updates.apply(gradients, tf.constant(updates.updater.coefficients(np.array([1e-3]), 0)[0].astype(np.float32)))
    variance = updates.slots["variance"]["kernel"].numpy()
    np.testing.assert_allclose(variance, 1e-3 * np.float64(np.float32(0.3)) ** 2, rtol=2e-7)
