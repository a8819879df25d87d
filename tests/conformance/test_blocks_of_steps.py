"""A block of training steps on every backend: running statistics, weight updates, losses against float64."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from unitrain.backends import TRAINING_BACKENDS, load_backend
from unitrain.backends.contract import Batchable, Plan, Precision, Settings
from unitrain.backends.rule import TrainingRule
from unitrain.graph.graph import Graph
from unitrain.graph.resolve import resolve
from unitrain.spec.losses import MeanSquaredError
from unitrain.spec.model import ModelSpec
from unitrain.spec.optimizers import Sgd
from unitrain.train.losses import make_loss
from unitrain.train.update import Update
from unitrain.verify.verdict import judge
from unitrain.weights.initialize import initialize

Array = np.ndarray[Any, Any]
STEPS, BATCH, SAMPLES = 4, 6, 20


@cache
def graph() -> Graph:
    return resolve(
        ModelSpec.model_validate(
            {
                "inputs": {"image": {"shape": [5, 4, 2]}},
                "layers": [
                    {"type": "batch_norm", "name": "first", "momentum": 0.6, "epsilon": 1e-3},
                    {"type": "conv2d", "name": "conv", "filters": 3, "kernel_size": 2, "activation": "tanh"},
                    {"type": "batch_norm", "name": "second", "use_scale": False},
                    {"type": "dropout", "name": "drop", "rate": 0.3},
                    {"type": "flatten", "name": "flat"},
                    {"type": "dense", "name": "y", "units": 2},
                ],
            }
        )
    )


def data() -> Batchable:
    generator = np.random.default_rng(0)
    image = 3 + 2 * generator.normal(size=(SAMPLES, 5, 4, 2))
    target = generator.normal(size=(SAMPLES, 2))
    return Batchable({"image": image.astype(np.float32)}, {"y": target.astype(np.float32)})


@cache
def trained(backend: str, precision: Precision, steps: int) -> tuple[dict[str, Array], Array]:
    """Train, and return what each weight has changed by, and the losses."""
    decays = {name: parameter.decay for name, parameter in graph().parameters.items()}
    update = Update(Sgd(momentum=0.9), decays)
    rule = TrainingRule({"y": (1.0, make_loss(MeanSquaredError()))}, (), update)
    weights = initialize(graph(), 1)
    program = load_backend(backend).compile(graph(), weights, Settings(precision=precision, seed=3), rule)
    indices = np.random.default_rng(1).integers(0, SAMPLES, (steps, BATCH)).astype(np.int32)
    plan = Plan(
        indices,
        update.coefficients(np.full(steps, 0.05), 0),
        np.ones(steps),
        np.ones(steps, dtype=bool),
        first_step=0,
    )
    statistics = program.run_steps(program.place(data()), plan)
    # As float64: of the float32 weights the difference is exact enough not to count.
    changes = {name: array.astype(np.float64) - weights[name] for name, array in program.weights().items()}
    return {name: array.astype(precision) for name, array in changes.items()}, statistics.losses


def test_the_running_statistics_after_a_step_are_the_formula() -> None:
    """momentum * old + (1 - momentum) * batch, with the biased variance."""
    first = np.random.default_rng(1).integers(0, SAMPLES, (1, BATCH))[0]
    batch = data().inputs["image"][first].astype(np.float64)
    changes, _ = trained("numpy", "float64", 1)
    np.testing.assert_allclose(changes["first.running_mean"], 0.4 * batch.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(changes["first.running_variance"], 0.4 * (batch.var((0, 1, 2), ddof=0) - 1), rtol=1e-12)


@pytest.mark.parametrize("steps", [1, STEPS])
@pytest.mark.parametrize(
    ("backend", "precision"),
    [
        (name, precision)
        for name in TRAINING_BACKENDS
        for precision in ("float32", "float64")
        if (name, precision) != ("numpy", "float64")
    ],
)
def test_every_weight_changes_as_in_the_reference(backend: str, precision: Precision, steps: int) -> None:
    found, losses = trained(backend, precision, steps)
    reference, reference_losses = trained("numpy", "float64", steps)
    numpy32, _ = trained("numpy", "float32", steps)
    assert found.keys() == reference.keys()
    for name, change in found.items():
        assert np.abs(reference[name]).max() > 0, name
        verdict = judge(change, reference[name], numpy32[name])
        assert verdict.passed, f"{backend}, {precision}, change of {name}: {verdict}"
    np.testing.assert_allclose(losses, reference_losses, rtol=1e-5 if precision == "float32" else 1e-12)
