"""Blocks of steps against a loop written by hand in NumPy float64, and what a block must not do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import keras
import numpy as np
import pytest

from unitrain.backends.contract import Batchable, Plan, Settings
from unitrain.backends.keras import BACKEND
from unitrain.backends.rule import TrainingRule
from unitrain.graph.graph import Graph
from unitrain.graph.resolve import resolve
from unitrain.spec.errors import InputError
from unitrain.spec.model import ModelSpec
from unitrain.weights.initialize import initialize

MODEL = {
    "inputs": {"words": {"shape": [3], "dtype": "integer"}, "number": {"shape": [4]}},
    "layers": [
        {"type": "embedding", "name": "table", "inputs": "words", "vocabulary": 5, "width": 4},
        {"type": "flatten", "name": "flat"},
        {"type": "concatenate", "name": "both", "inputs": ["flat", "number"]},
        {"type": "dense", "name": "hidden", "units": 6},
        {"type": "batch_norm", "name": "norm"},
        {"type": "dropout", "name": "drop", "rate": 0.4},
        {"type": "dense", "name": "left", "units": 2},
        {"type": "dense", "name": "right", "units": 1, "inputs": "drop"},
    ],
    "outputs": ["left", "right"],
}
MOMENTUM, DECAY = 0.9, 0.8


class SquaredError:
    """sum(w (p - t)^2) / sum(w), every w 1 where there are none."""

    def terms(self, xp: Any, prediction: Any, target: Any, weight: Any) -> tuple[Any, Any]:
        weight = self._column(xp, weight, prediction)
        return xp.sum(weight * xp.square(prediction - target)), xp.sum(weight)

    def gradient(self, xp: Any, prediction: Any, target: Any, weight: Any) -> Any:
        return 2.0 * self._column(xp, weight, prediction) * (prediction - target)

    def _column(self, xp: Any, weight: Any, like: Any) -> Any:
        return xp.ones_like(like[:, :1]) if weight is None else xp.reshape(weight, (-1, 1))


class Positive:
    """The share of predictions above 0, as a metric."""

    def terms(self, xp: Any, prediction: Any, target: Any, weight: Any) -> tuple[Any, Any]:
        above = xp.cast(prediction > 0, prediction)
        return xp.sum(above), xp.sum(xp.ones_like(above))


class Momentum:
    """b = mu b + g, w -= lr b, and a moving average of the weights; counts how often it is traced."""

    slots = ("velocity", "ema")
    fusible = False

    def __init__(self) -> None:
        self.calls = 0

    def alike(self, names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
        return (tuple(names),)

    def update(
        self,
        xp: Any,
        parameters: Mapping[str, Any],
        gradients: Mapping[str, Any],
        slots: Mapping[str, Mapping[str, Any]],
        coefficients: Sequence[Any],
    ) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        self.calls += 1
        (rate,) = coefficients
        velocity = {name: MOMENTUM * slots["velocity"][name] + gradients[name] for name in parameters}
        new = {name: parameters[name] - rate * velocity[name] for name in parameters}
        ema = {name: DECAY * slots["ema"][name] + (1 - DECAY) * new[name] for name in parameters}
        return new, {"velocity": velocity, "ema": ema}


@pytest.fixture(scope="module")
def graph() -> Graph:
    return resolve(ModelSpec.model_validate(MODEL))


@pytest.fixture(scope="module")
def updater() -> Momentum:
    return Momentum()


@pytest.fixture(scope="module")
def program(graph: Graph, updater: Momentum) -> Any:
    rule = TrainingRule(
        {"left": (1.0, SquaredError()), "right": (0.5, SquaredError())},
        [("share", "left", Positive())],
        updater,
    )
    return BACKEND.compile(graph, initialize(graph, 1), Settings(precision="float64", seed=3), rule)


def reset(program: Any, graph: Graph) -> None:
    weights = initialize(graph, 1)
    program.load_weights(weights)
    slots = {name: np.zeros_like(weights[name]) for name in graph.trainable}
    program.load_slots({"velocity": slots, "ema": {name: weights[name] for name in graph.trainable}})


def data(samples: int = 40) -> Batchable:
    random = np.random.default_rng(0)
    return Batchable(
        {
            "words": random.integers(0, 5, (samples, 3)).astype(np.int32),
            "number": random.integers(0, 255, (samples, 4)).astype(np.uint8),
        },
        {"left": random.normal(size=(samples, 2)), "right": random.normal(size=(samples, 1))},
        random.uniform(0.5, 2.0, samples),
    )


def plan(steps: int, accumulate: int = 1, first: int = 0, batch: int = 7) -> Plan:
    random = np.random.default_rng(first)
    return Plan(
        random.integers(0, 40, (steps, batch)).astype(np.int32),
        random.uniform(1e-4, 1e-3, (steps, 1)),
        np.full(steps, 1.0 / accumulate),
        np.arange(first, first + steps) % accumulate == accumulate - 1,
        first,
    )


def loop_by_hand(program: Any, graph: Graph, plans: Sequence[Plan]) -> tuple[Any, Any, list[float], list[float]]:
    """Train in NumPy; only the derivatives of the model itself come from the program."""
    samples = data()
    updater = Momentum()
    weights, slots = program.weights(), program.slots()
    total = {name: np.zeros_like(weights[name]) for name in graph.trainable}
    losses, shares = [], []
    for step_plan in plans:
        for step in range(len(step_plan)):
            rows = step_plan.indices[step]
            number = step_plan.first_step + step
            inputs = {name: array[rows] for name, array in samples.inputs.items()}
            weight = samples.weight[rows]
            program.load_weights(weights)
            values = program.activations(inputs, training=True, step=number)
            seeds, loss = {}, 0.0
            for name, factor in (("left", 1.0), ("right", 0.5)):
                error = values[name] - samples.targets[name][rows]
                loss += factor * (weight[:, None] * error**2).sum() / weight.sum()
                seeds[name] = factor * 2 * weight[:, None] * error / weight.sum()
            losses.append(loss)
            shares.append((values["left"] > 0).mean())
            gradients = program.differentiate(inputs, seeds, training=True, step=number)[2]
            for name in total:
                total[name] += step_plan.scale[step] * gradients[name]
            for name, batch in (("mean", values["hidden"].mean(0)), ("variance", values["hidden"].var(0))):
                weights[f"norm.running_{name}"] = 0.9 * weights[f"norm.running_{name}"] + 0.1 * batch
            if step_plan.apply[step]:
                trained = {name: weights[name] for name in graph.trainable}
                trained, slots = updater.update(None, trained, total, slots, step_plan.coefficients[step])
                weights.update(trained)
                total = {name: np.zeros_like(array) for name, array in total.items()}
    return weights, slots, losses, shares


@pytest.mark.parametrize("accumulate", [1, 3])
def test_blocks_do_what_the_loop_does(program: Any, graph: Graph, accumulate: int) -> None:
    # The second block starts in the middle of an update when gradients are accumulated.
    plans = [plan(4, accumulate), plan(5, accumulate, first=4)]
    reset(program, graph)
    weights, slots, losses, shares = loop_by_hand(program, graph, plans)
    reset(program, graph)
    placed = program.place(data())
    done = [program.run_steps(placed, item) for item in plans]

    np.testing.assert_allclose(np.concatenate([item.losses for item in done]), losses, rtol=1e-12)
    for item, expected in zip(done, (shares[:4], shares[4:]), strict=True):
        above, count = item.metric_terms["share"].T
        np.testing.assert_array_equal(count, [7 * 2] * len(item.losses))
        np.testing.assert_allclose(above / count, expected)
    for name, expected in weights.items():
        np.testing.assert_allclose(program.weights()[name], expected, rtol=1e-11, atol=1e-13, err_msg=name)
    for slot, arrays in slots.items():
        for name, expected in arrays.items():
            np.testing.assert_allclose(program.slots()[slot][name], expected, rtol=1e-11, atol=1e-13)


def test_other_lengths_and_batches_are_not_traced_again(program: Any, graph: Graph, updater: Momentum) -> None:
    reset(program, graph)
    placed = program.place(data())
    program.run_steps(placed, plan(2))
    before = updater.calls
    program.run_steps(placed, plan(5))
    program.run_steps(placed, plan(1, batch=4))
    program.run_steps(program.place(data(60)), plan(3))
    assert updater.calls == before


def test_block_length_does_not_matter(program: Any, graph: Graph) -> None:
    placed = program.place(data())
    whole = plan(6)
    results = []
    for cuts in ([0, 6], [0, 1, 4, 6]):
        reset(program, graph)
        losses = []
        for start, end in pairwise(cuts):
            part = Plan(
                whole.indices[start:end],
                whole.coefficients[start:end],
                whole.scale[start:end],
                whole.apply[start:end],
                start,
            )
            losses.extend(program.run_steps(placed, part).losses)
        results.append((losses, program.weights()))
    assert results[0][0] == results[1][0]
    for name, array in results[0][1].items():
        np.testing.assert_array_equal(array, results[1][1][name])


@pytest.mark.parametrize("accumulate", [1, 3])
def test_stops_before_a_step_that_is_not_finite(program: Any, graph: Graph, accumulate: int) -> None:
    samples = data()
    samples.targets["left"][39] = np.inf
    indices = np.arange(6 * 4).reshape(6, 4).astype(np.int32)
    indices[3, 2] = 39
    whole = plan(6, accumulate, batch=4)
    broken = Plan(indices, whole.coefficients, whole.scale, whole.apply, 0)
    sound = Plan(indices[:3], whole.coefficients[:3], whole.scale[:3], whole.apply[:3], 0)
    placed = program.place(samples)
    reset(program, graph)
    expected = program.run_steps(placed, sound)
    weights, slots = program.weights(), program.slots()
    reset(program, graph)
    found = program.run_steps(placed, broken)
    assert len(found.losses) == 4
    assert not np.isfinite(found.losses[3])
    np.testing.assert_array_equal(found.losses[:3], expected.losses)
    np.testing.assert_equal(found.metric_terms, expected.metric_terms)
    for name, array in program.weights().items():
        np.testing.assert_array_equal(array, weights[name])
    for slot, arrays in program.slots().items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, slots[slot][name])


def test_looking_changes_nothing(program: Any, graph: Graph) -> None:
    reset(program, graph)
    inputs = {name: array[:5] for name, array in data().inputs.items()}
    before = program.weights()
    counters = [keras.ops.convert_to_numpy(variable) for variable in program.model.variables]
    first = program.activations(inputs, training=True, step=2)
    seeds = {"left": np.ones((5, 2)), "right": np.ones((5, 1))}
    program.differentiate(inputs, seeds, training=True, step=2)
    program.predict(inputs, batch_size=2)
    again = program.activations(inputs, training=True, step=2)
    other = program.activations(inputs, training=True, step=3)
    for name, array in program.weights().items():
        np.testing.assert_array_equal(array, before[name])
    for variable, value in zip(program.model.variables, counters, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), value)
    np.testing.assert_array_equal(first["drop"], again["drop"])
    assert (first["drop"] != other["drop"]).any()


def test_weights_are_copies(program: Any, graph: Graph) -> None:
    given = {name: np.array(array, dtype=np.float64) for name, array in initialize(graph, 1).items()}
    program.load_weights(given)
    expected = {name: array.copy() for name, array in given.items()}
    for array in (*given.values(), *program.weights().values()):
        array += 1.0
    for name, array in program.weights().items():
        np.testing.assert_array_equal(array, expected[name])


def test_index_outside_an_embedding(program: Any) -> None:
    wrong = data()
    wrong.inputs["words"][3, 1] = 5
    for call in (lambda: program.place(wrong), lambda: program.predict(wrong.inputs)):
        with pytest.raises(InputError, match="'table'") as caught:
            call()
        problem = caught.value.problems[0]
        assert (problem.found, problem.allowed) == ("5", "0 .. 4")


def test_without_a_rule_there_are_no_steps(graph: Graph) -> None:
    program = BACKEND.compile(graph, initialize(graph, 1), Settings())
    with pytest.raises(ValueError, match="without a training rule"):
        program.run_steps(program.place(data()), plan(1))


def test_own_generator_moves_from_step_to_step(graph: Graph) -> None:
    """Outside deterministic mode Keras' seeded generator draws the masks: new each step, same each run."""
    runs = []
    for _ in range(2):
        rule = TrainingRule({"left": (1.0, SquaredError())}, [], Momentum())
        program = BACKEND.compile(graph, initialize(graph, 1), Settings(deterministic=False, seed=3), rule)
        samples = data()
        placed = program.place(Batchable(samples.inputs, samples.targets))
        still = plan(4)
        still.indices[:] = still.indices[0]
        still.coefficients[:] = 0.0
        runs.append(program.run_steps(placed, still).losses)
    np.testing.assert_array_equal(runs[0], runs[1])
    assert len(set(runs[0])) == 4
