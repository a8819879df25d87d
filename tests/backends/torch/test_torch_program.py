"""Blocks of steps against loops written in plain torch, and what a program must leave alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from unitrain.backends.contract import Batchable, Plan, Settings
from unitrain.backends.rule import TrainingRule
from unitrain.backends.torch import BACKEND
from unitrain.graph.graph import Graph
from unitrain.graph.resolve import resolve
from unitrain.spec.losses import CrossEntropy, MeanSquaredError
from unitrain.spec.model import ModelSpec
from unitrain.spec.optimizers import Adam
from unitrain.train.losses import make_loss
from unitrain.train.update import Update
from unitrain.weights.initialize import initialize

Array = np.ndarray[Any, Any]

SAMPLES, BATCH, RATE = 30, 5, 0.02
MODEL = {
    "inputs": {"words": {"shape": [3], "dtype": "integer"}, "number": {"shape": [4]}},
    "layers": [
        {"type": "embedding", "name": "table", "inputs": "words", "vocabulary": 5, "width": 4},
        {"type": "flatten", "name": "flat"},
        {"type": "concatenate", "name": "both", "inputs": ["flat", "number"]},
        {"type": "dense", "name": "hidden", "units": 6, "activation": "tanh"},
        {"type": "batch_norm", "name": "norm"},
        {"type": "dropout", "name": "drop", "rate": 0.4},
        {"type": "dense", "name": "left", "units": 2},
        {"type": "dense", "name": "right", "units": 3, "inputs": "norm"},
    ],
    "outputs": ["left", "right"],
}


@pytest.fixture(scope="module")
def graph() -> Graph:
    return resolve(ModelSpec.model_validate(MODEL))


def data() -> Batchable:
    generator = np.random.default_rng(0)
    return Batchable(
        {
            "words": generator.integers(0, 5, (SAMPLES, 3)).astype(np.int32),
            "number": generator.integers(0, 255, (SAMPLES, 4)).astype(np.uint8),
        },
        {"left": generator.normal(size=(SAMPLES, 2)), "right": generator.integers(0, 3, SAMPLES).astype(np.int32)},
        generator.uniform(0.5, 2.0, SAMPLES),
    )


class Setup:
    """A program, and what made it."""

    def __init__(self, graph: Graph, settings: Settings | None = None, **options: Any) -> None:
        self.graph, self.settings = graph, settings or Settings(precision="float64", seed=4)
        self.update = Update(Adam(**options), {name: parameter.decay for name, parameter in graph.parameters.items()})
        losses = {"left": (1.0, make_loss(MeanSquaredError())), "right": (0.5, make_loss(CrossEntropy()))}
        self.rule = TrainingRule(losses, [("share", "left", Positive())], self.update)
        self.program: Any = BACKEND.compile(graph, initialize(graph, 1), self.settings, self.rule)

    def plan(self, steps: int, first: int = 0, accumulate: int = 1) -> Plan:
        """Plan steps ``first`` and on of one fixed course of training."""
        numbers = np.arange(first, first + steps)
        return Plan(
            np.random.default_rng(5).integers(0, SAMPLES, (100, BATCH)).astype(np.int32)[numbers],
            self.update.coefficients(np.full(100, RATE), 0)[numbers // accumulate],
            np.full(steps, 1.0 / accumulate),
            numbers % accumulate == accumulate - 1,
            first,
        )


class Positive:
    """How many predictions are above 0, of how many."""

    def terms(self, xp: Any, prediction: Any, target: Any, weight: Any) -> tuple[Any, Any]:
        above = xp.cast(prediction > 0, prediction)
        return xp.sum(above), xp.sum(xp.ones_like(above))


def loop_in_torch(setup: Setup, plan: Plan, accumulate: int) -> tuple[Any, list[float], float]:
    """Train the module that `build` gives with torch's own losses and optimizer."""
    module = BACKEND.build(setup.graph, initialize(setup.graph, 1), setup.settings).train()
    optimizer = torch.optim.Adam(module.parameters(), lr=RATE)
    samples = data()
    assert samples.weight is not None
    losses, positive = [], 0.0
    for step, rows in enumerate(plan.indices):
        words = torch.from_numpy(samples.inputs["words"][rows]).long()
        number = torch.from_numpy(samples.inputs["number"][rows]).double()
        weight = torch.from_numpy(samples.weight[rows])
        outputs = module(words, number)
        squares = (outputs["left"] - torch.from_numpy(samples.targets["left"][rows])).square().mean(dim=1)
        target = torch.from_numpy(samples.targets["right"][rows]).long()
        entropies = torch.nn.functional.cross_entropy(outputs["right"], target, reduction="none")
        loss = ((squares + 0.5 * entropies) * weight).sum() / weight.sum()
        (loss / accumulate).backward()
        losses.append(loss.item())
        positive += float((outputs["left"] > 0).sum())
        if plan.apply[step]:
            optimizer.step()
            optimizer.zero_grad()
    return module, losses, positive


@pytest.mark.parametrize("accumulate", [1, 3])
def test_blocks_are_a_loop_in_plain_torch(graph: Graph, accumulate: int) -> None:
    setup = Setup(graph)
    module, losses, positive = loop_in_torch(setup, setup.plan(12, accumulate=accumulate), accumulate)
    placed = setup.program.place(data())
    # The second block begins in the middle of an accumulated update.
    first = setup.program.run_steps(placed, setup.plan(7, 0, accumulate))
    second = setup.program.run_steps(placed, setup.plan(5, 7, accumulate))
    np.testing.assert_allclose([*first.losses, *second.losses], losses, rtol=1e-10)
    counts = np.concatenate([first.metric_terms["share"], second.metric_terms["share"]])
    np.testing.assert_array_equal(counts.sum(axis=0), [positive, 12 * BATCH * 2])
    expected = module.canonical_weights()
    for name, array in setup.program.weights().items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-9, atol=1e-12, err_msg=name)


def test_how_steps_are_cut_into_blocks_changes_no_bit(graph: Graph) -> None:
    ends = []
    for cuts in ([(12, 0)], [(5, 0), (4, 5), (3, 9)]):
        setup = Setup(graph, Settings(seed=4), clip_norm=0.5, ema=0.9)
        placed = setup.program.place(data())
        for steps, first in cuts:
            setup.program.run_steps(placed, setup.plan(steps, first, accumulate=2))
        ends.append({**setup.program.weights(), **setup.program.slots()["ema"]})
    for name, array in ends[0].items():
        np.testing.assert_array_equal(array, ends[1][name])


def test_weights_and_slots_carry_a_run_to_another_program(graph: Graph) -> None:
    first, second = Setup(graph, ema=0.9), Setup(graph, ema=0.9)
    placed = first.program.place(data())
    first.program.run_steps(placed, first.plan(4))
    second.program.load_weights(first.program.weights())
    second.program.load_slots(first.program.slots())
    for setup in (first, second):
        setup.program.run_steps(placed, setup.plan(4, 4))
    for slot, arrays in first.program.slots().items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(second.program.slots()[slot][name], array)
    for name, array in first.program.weights().items():
        np.testing.assert_array_equal(second.program.weights()[name], array)


def test_the_moving_average_starts_as_the_weights_and_other_slots_as_zeros(graph: Graph) -> None:
    program = Setup(graph, ema=0.9).program
    weights, slots = program.weights(), program.slots()
    for name in graph.trainable:
        np.testing.assert_array_equal(slots["ema"][name], weights[name])
        for slot in slots.keys() - {"ema"}:
            assert not slots[slot][name].any()


def test_a_step_that_is_not_finite_is_not_applied(graph: Graph) -> None:
    setup, clean = Setup(graph), Setup(graph)
    samples = data()
    plan = setup.plan(6)
    number = samples.inputs["number"].astype(np.float64)
    used = {*plan.indices[:3].ravel()}
    bad = next(row for row in plan.indices[3] if row not in used)
    number[bad] = np.nan
    spoilt = Batchable({**samples.inputs, "number": number}, samples.targets, samples.weight)
    statistics = setup.program.run_steps(setup.program.place(spoilt), plan)
    expected = clean.program.run_steps(clean.program.place(samples), clean.plan(3))
    np.testing.assert_array_equal(statistics.losses[:3], expected.losses)
    assert len(statistics.losses) == 4
    assert np.isnan(statistics.losses[3])
    np.testing.assert_equal(statistics.metric_terms, expected.metric_terms)
    for name, array in clean.program.weights().items():
        np.testing.assert_array_equal(setup.program.weights()[name], array)
    for slot, arrays in clean.program.slots().items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(setup.program.slots()[slot][name], array)


def test_loaded_weights_drop_gradients_not_yet_applied(graph: Graph) -> None:
    setup, fresh = Setup(graph), Setup(graph)
    placed = setup.program.place(data())
    setup.program.run_steps(placed, setup.plan(1, accumulate=2))
    for each in (setup, fresh):
        each.program.load_weights(initialize(graph, 2))
        each.program.run_steps(placed, each.plan(2, 4, accumulate=2))
    for name, array in fresh.program.weights().items():
        np.testing.assert_array_equal(setup.program.weights()[name], array)


def test_chunks_of_a_prediction_are_the_whole(graph: Graph) -> None:
    program, inputs = Setup(graph).program, data().inputs
    whole = program.predict(inputs, batch_size=SAMPLES)
    for size in (1, 7, 1000):
        for name, array in program.predict(inputs, batch_size=size).items():
            np.testing.assert_allclose(array, whole[name], rtol=1e-13, atol=1e-15)
    assert {name: array.shape for name, array in whole.items()} == {"left": (SAMPLES, 2), "right": (SAMPLES, 3)}
    none = program.predict({name: array[:0] for name, array in inputs.items()})
    assert {name: array.shape for name, array in none.items()} == {"left": (0, 2), "right": (0, 3)}


def test_looking_changes_nothing(graph: Graph) -> None:
    """Neither weights, statistics nor pending gradients; and what a program gives away is the caller's own."""
    looked, untouched = Setup(graph), Setup(graph)
    inputs = {name: array[:BATCH] for name, array in data().inputs.items()}
    gradients = {"left": np.ones((BATCH, 2)), "right": np.ones((BATCH, 3))}
    for setup in (looked, untouched):
        setup.program.run_steps(setup.program.place(data()), setup.plan(3, accumulate=2))
    before = {name: array.copy() for name, array in inputs.items()}
    for training in (True, False):
        looked.program.activations(inputs, training=training, step=3)
        looked.program.differentiate(inputs, gradients, training=training, step=3)
    looked.program.predict(inputs)
    for array in [*looked.program.weights().values(), *looked.program.activations(inputs).values()]:
        array[...] = 99
    for setup in (looked, untouched):
        setup.program.run_steps(setup.program.place(data()), setup.plan(3, 3, accumulate=2))
    for name, array in untouched.program.weights().items():
        np.testing.assert_array_equal(looked.program.weights()[name], array)
    for name, array in inputs.items():
        np.testing.assert_array_equal(array, before[name])
    assert not looked.program.model.training


def test_training_leaves_the_data_alone(graph: Graph) -> None:
    setup, samples = Setup(graph), data()
    arrays = [*samples.inputs.values(), *samples.targets.values(), samples.weight]
    before = [np.copy(array) for array in arrays]
    setup.program.run_steps(setup.program.place(samples), setup.plan(3))
    for array, copied in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, copied)


@pytest.fixture(params=["usual", "unusual"])
def global_state(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """Torch's global state as a user may have set it; restored afterwards."""
    before = global_state_now()
    if request.param == "unusual":
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        torch.use_deterministic_algorithms(True, warn_only=True)
    torch.manual_seed(123)
    yield global_state_now()
    torch.set_default_dtype(before["dtype"])
    torch.set_grad_enabled(before["grad"])
    torch.use_deterministic_algorithms(before["deterministic"], warn_only=before["warn"])


def global_state_now() -> dict[str, Any]:
    return {
        "dtype": torch.get_default_dtype(),
        "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn": torch.is_deterministic_algorithms_warn_only_enabled(),
        "anomaly": torch.is_anomaly_enabled(),
        "threads": torch.get_num_threads(),
        "cudnn": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
    }


@pytest.mark.parametrize("deterministic", [True, False])
def test_no_global_state_is_changed(graph: Graph, deterministic: bool, global_state: dict[str, Any]) -> None:
    random = torch.random.get_rng_state()
    setup = Setup(graph, Settings(seed=4, deterministic=deterministic))
    program = setup.program
    program.run_steps(program.place(data()), setup.plan(2))
    inputs = {name: array[:BATCH] for name, array in data().inputs.items()}
    program.predict(inputs)
    program.activations(inputs, training=True)
    program.differentiate(inputs, {"left": np.ones((BATCH, 2), np.float32)})
    assert global_state_now() == global_state
    assert torch.equal(torch.random.get_rng_state(), random)


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode])
def test_no_global_state_matters(graph: Graph, around: Any) -> None:
    """Not even one in which torch would not differentiate, and the model silently not learn."""

    def trained() -> dict[str, Array]:
        setup = Setup(graph)
        program = setup.program
        program.run_steps(program.place(data()), setup.plan(3))
        inputs = {name: array[:BATCH] for name, array in data().inputs.items()}
        _, by_input, by_parameter = program.differentiate(inputs, {"left": np.ones((BATCH, 2))})
        return {**program.weights(), **by_input, **{f"d{name}": array for name, array in by_parameter.items()}}

    expected = trained()
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float16)
    try:
        with around():
            found = trained()
    finally:
        torch.set_default_dtype(before)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_an_error_leaves_no_trace(graph: Graph) -> None:
    setup = Setup(graph, Settings(seed=4, deterministic=False))
    random = torch.random.get_rng_state()
    with pytest.raises(Exception, match=r"3|4|shape|size"):
        setup.program.activations({"words": np.zeros((2, 3), np.int32), "number": np.zeros((2, 9))}, training=True)
    assert not setup.program.model.training
    assert torch.equal(torch.random.get_rng_state(), random)
    assert torch.is_grad_enabled()


def test_torchs_own_masks_are_a_function_of_seed_and_step(graph: Graph) -> None:
    def trained(seed: int) -> dict[str, Array]:
        setup = Setup(graph, Settings(seed=seed, deterministic=False))
        setup.program.run_steps(setup.program.place(data()), setup.plan(4))
        found: dict[str, Array] = setup.program.weights()
        return found

    torch.manual_seed(0)
    first = trained(4)
    torch.manual_seed(1)
    again, other = trained(4), trained(5)
    for name, array in first.items():
        np.testing.assert_array_equal(again[name], array)
    assert (first["left.kernel"] != other["left.kernel"]).any()


def test_an_output_without_gradient_gives_zeros(graph: Graph) -> None:
    program = Setup(graph).program
    inputs = {name: array[:BATCH] for name, array in data().inputs.items()}
    _, by_input, by_parameter = program.differentiate(inputs, {"left": np.ones((BATCH, 2))})
    assert list(by_input) == ["number"]
    assert by_parameter.keys() == {*graph.trainable}
    assert not by_parameter["right.kernel"].any()
    assert by_parameter["left.kernel"].any()


def test_without_a_rule_there_is_no_training(graph: Graph) -> None:
    setup = Setup(graph)
    program: Any = BACKEND.compile(graph, initialize(graph, 0), Settings())
    with pytest.raises(ValueError, match="rule"):
        program.run_steps(program.place(data()), setup.plan(1))


def test_pooling_before_relu_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rewritten order of layers trains and predicts as the written one, dropout and norms between them too."""
    layers = [
        {"type": "conv2d", "filters": 3, "kernel_size": 3, "padding": "same"},
        {"type": "relu", "name": "first"},
        {"type": "max_pool2d", "kernel_size": 2},
        {"type": "batch_norm"},
        {"type": "dropout", "rate": 0.3},
        {"type": "conv2d", "filters": 4, "kernel_size": 2, "activation": "relu"},
        {"type": "max_pool2d", "kernel_size": 2, "strides": 1},
        {"type": "flatten"},
        {"type": "dense", "name": "y", "units": 2},
    ]
    net = resolve(ModelSpec.model_validate({"inputs": {"x": {"shape": [8, 8, 2]}}, "layers": layers}))
    # Whole numbers: many windows hold their maximum several times, and many hold nothing above zero.
    images = np.random.default_rng(2).integers(-2, 3, (SAMPLES, 8, 8, 2)).astype(np.float32)
    samples = Batchable({"x": images}, {"y": np.random.default_rng(3).normal(size=(SAMPLES, 2)).astype(np.float32)})
    update = Update(Adam(), {name: parameter.decay for name, parameter in net.parameters.items()})
    rule = TrainingRule({"y": (1.0, make_loss(MeanSquaredError()))}, [], update)
    rows = np.random.default_rng(5).integers(0, SAMPLES, (6, BATCH)).astype(np.int32)
    plan = Plan(rows, update.coefficients(np.full(6, RATE), 0), np.ones(6), np.ones(6, bool), 0)

    def trained() -> tuple[list[str], list[Array]]:
        program: Any = BACKEND.compile(net, initialize(net, 1), Settings(seed=4), rule)
        program.run_steps(program.place(samples), plan)
        return [step.path for step in program._way], [program.predict(samples.inputs)["y"], *program.weights().values()]

    paths, fast = trained()
    monkeypatch.setattr("unitrain.backends.torch.program.pool_first", lambda graph: graph)
    written, plain = trained()
    assert paths != written
    for a, b in zip(fast, plain, strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_is_freed_is_kept_on_the_cpu(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr("unitrain.backends.torch.program.keep_freed_memory", lambda: asked.append(True))
    BACKEND.compile(graph, initialize(graph, 0), Settings())
    assert asked == [True]
