"""Trajectories of 200 steps with every optimizer: all backends against a float64 run of the NumPy reference.

The model has no kinks, so that rounding errors do not jump. What is compared is how far weights have come, not the
weights, beside running statistics, optimizer state and losses. Rounding errors of two runs grow alike: the verdict
rule's yardstick, NumPy's own float32 run, has been through the same 200 steps.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from unitrain.backends import TRAINING_BACKENDS, load_backend
from unitrain.backends.contract import Batchable, Plan, Precision, Settings
from unitrain.backends.rule import TrainingRule
from unitrain.graph.graph import Graph
from unitrain.graph.resolve import resolve
from unitrain.spec.losses import CrossEntropy
from unitrain.spec.model import ModelSpec
from unitrain.spec.optimizers import Adagrad, Adam, AdamW, Lion, Nadam, Optimizer, RmsProp, Sgd
from unitrain.train.losses import make_loss
from unitrain.train.update import Update
from unitrain.verify.verdict import judge
from unitrain.weights.initialize import initialize
from unitrain.weights.random import stream

Array = np.ndarray[Any, Any]

STEPS, BATCH, SAMPLES, FEATURES, CLASSES = 200, 8, 64, 5, 3
# Neither block nor group of accumulated steps ends with the other.
BLOCKS = (67, 64, 69)

OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": Sgd(lr=0.05, momentum=0.9),
    "nesterov with penalty": Sgd(lr=0.05, momentum=0.9, nesterov=True, l2=1e-3),
    "adam": Adam(lr=1e-2),
    "adamw, accumulated, clipped, averaged": AdamW(lr=1e-2, weight_decay=0.05, clip_norm=0.1, ema=0.95),
    "rmsprop": RmsProp(lr=1e-3),
    "rmsprop, centred, momentum": RmsProp(lr=1e-3, centred=True, momentum=0.5),
    "adagrad, clipped by value": Adagrad(lr=1e-2, clip_value=0.01),
    "nadam": Nadam(lr=2e-3),
    "lion": Lion(lr=1e-3),
}
# What frameworks do by default, or careless ports: each planted in place of the optimizer it is named after.
FAULTS: dict[str, tuple[str, Optimizer]] = {
    "epsilon": ("adam", Adam(lr=1e-2, epsilon=1e-7)),
    "moments": ("adam", Nadam(lr=1e-2)),
    "momentum": ("sgd", Sgd(lr=0.05, momentum=0.9, nesterov=True)),
    "half the penalty": ("nesterov with penalty", Sgd(lr=0.05, momentum=0.9, nesterov=True, l2=5e-4)),
    "decoupled decay": ("nesterov with penalty", Sgd(lr=0.05, momentum=0.9, nesterov=True, weight_decay=2e-3)),
    "decay of norms": ("nesterov with penalty", Sgd(lr=0.05, momentum=0.9, nesterov=True, l2=1e-3, decay_all=True)),
    "limit of each element": ("adagrad, clipped by value", Adagrad(lr=1e-2, clip_norm=0.01)),
    "epsilon of the root": ("rmsprop", RmsProp(lr=1e-3, epsilon=1e-7)),
}
ACCUMULATE = {"adamw, accumulated, clipped, averaged": 2}
# A sign is discontinuous: where Lion's momentum crosses 0, two roundings move a weight to different sides. Over few
# steps none does here.
SHORTER = {"lion": 40}
RUNS: list[tuple[str, Precision]] = [
    *((name, "float32") for name in TRAINING_BACKENDS),
    *((name, "float64") for name in TRAINING_BACKENDS if name != "numpy"),
]


@cache
def graph() -> Graph:
    layers = [
        {"type": "dense", "name": "hidden", "units": 8, "activation": "tanh"},
        {"type": "batch_norm", "name": "norm"},
        {"type": "dropout", "name": "drop", "rate": 0.2},
        {"type": "dense", "name": "logits", "units": CLASSES},
    ]
    return resolve(ModelSpec.model_validate({"inputs": {"x": {"shape": [FEATURES]}}, "layers": layers}))


def data() -> Batchable:
    """Noisy classes, so that the loss does not go to 0 and gradients stay well above rounding."""
    generator = stream(0, "trajectory", "data")
    x = generator.normal(size=(SAMPLES, FEATURES)).astype(np.float32)
    noise = generator.normal(size=(SAMPLES, CLASSES))
    classes = np.argmax(x @ generator.normal(size=(FEATURES, CLASSES)) + noise, axis=1)
    return Batchable({"x": x}, {"logits": classes.astype(np.int32)}, generator.uniform(0.5, 2.0, SAMPLES))


def plans(update: Update, steps: int, accumulate: int) -> list[Plan]:
    """Plan the steps with a falling learning rate, cut into blocks."""
    rates = update.spec.lr * np.linspace(1.0, 0.2, -(-steps // accumulate))
    apply = np.arange(steps) % accumulate == accumulate - 1
    coefficients = update.coefficients(rates, 0)[np.arange(steps) // accumulate]
    indices = stream(0, "trajectory", "order").integers(0, SAMPLES, (STEPS, BATCH), dtype=np.int32)
    edges = [edge for edge in np.cumsum((0, *BLOCKS)) if edge < steps] + [steps]
    return [
        Plan(
            indices[first:end],
            coefficients[first:end],
            np.full(end - first, 1.0 / accumulate),
            apply[first:end],
            int(first),
        )
        for first, end in pairwise(edges)
    ]


@cache
def trained(backend: str, precision: Precision, label: str) -> dict[str, Array]:
    """Train; return changes of the weights, optimizer state and losses, in the working precision."""
    spec = OPTIMIZERS[label] if label in OPTIMIZERS else FAULTS[label][1]
    update = Update(spec, {name: parameter.decay for name, parameter in graph().parameters.items()})
    rule = TrainingRule({"logits": (1.0, make_loss(CrossEntropy(label_smoothing=0.1)))}, (), update)
    start = initialize(graph(), 1)
    program = load_backend(backend).compile(graph(), start, Settings(precision=precision, seed=3), rule)
    placed = program.place(data())
    steps = SHORTER.get(label, STEPS)
    losses = [program.run_steps(placed, plan).losses for plan in plans(update, steps, ACCUMULATE.get(label, 1))]
    found = {
        **{f"change of {name}": array - start[name].astype(np.float64) for name, array in program.weights().items()},
        **{f"{slot} of {name}": array for slot, arrays in program.slots().items() for name, array in arrays.items()},
        "losses": np.concatenate(losses),
    }
    assert len(found["losses"]) == steps
    return {name: array.astype(precision) for name, array in found.items()}


@pytest.mark.parametrize(("backend", "precision"), RUNS)
@pytest.mark.parametrize("label", OPTIMIZERS)
def test_trajectory_is_the_reference(label: str, backend: str, precision: Precision) -> None:
    reference, numpy32 = trained("numpy", "float64", label), trained("numpy", "float32", label)
    found = trained(backend, precision, label)
    assert found.keys() == reference.keys()
    verdicts = {name: judge(array, reference[name], numpy32[name]) for name, array in found.items()}
    wrong = [f"{name}: {verdict}" for name, verdict in verdicts.items() if not verdict.passed]
    assert not wrong, "\n".join([f"{label} in {backend}, {precision}", *wrong])


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_rule_ends_elsewhere(fault: str) -> None:
    """In float64 every weight shows it; the drift of 200 steps in float32 would hide an epsilon."""
    label, _ = FAULTS[fault]
    reference, numpy32 = trained("numpy", "float64", label), trained("numpy", "float32", label)
    for name, array in trained("numpy", "float64", fault).items():
        if name.startswith("change"):
            verdict = judge(array, reference[name], numpy32[name])
            assert not verdict.passed, f"{name}: {verdict}"


@pytest.mark.parametrize("label", OPTIMIZERS)
def test_the_trajectory_goes_somewhere_and_the_yardstick_is_short(label: str) -> None:
    """Every weight moves, and NumPy's float32 run ends where its float64 run does: a fault would be seen."""
    reference, numpy32 = trained("numpy", "float64", label), trained("numpy", "float32", label)
    for name, array in reference.items():
        size = np.sqrt(np.mean(np.square(array)))
        assert size > 0, name
        assert np.sqrt(np.mean(np.square(numpy32[name] - array))) < 1e-3 * size, name


def test_every_optimizer_is_among_the_trajectories() -> None:
    kinds = {*Sgd.__mro__[1].__subclasses__(), AdamW}
    assert {type(optimizer) for optimizer in OPTIMIZERS.values()} == kinds
