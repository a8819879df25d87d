"""Training steps against arithmetic by hand: updates, accumulation, state, and what stops them."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from unitrain.backends.contract import Batchable, Plan, Program, Settings, Statistics
from unitrain.backends.host_memory import keep_freed_memory
from unitrain.backends.numpy import BACKEND
from unitrain.backends.numpy.execution import Mode, backward, forward
from unitrain.backends.rule import TrainingRule
from unitrain.graph.graph import Graph
from unitrain.graph.resolve import resolve
from unitrain.spec.errors import InputError
from unitrain.spec.layers import LAYER_TYPES
from unitrain.spec.model import ModelSpec
from unitrain.weights.initialize import initialize
from unitrain.weights.random import keep_mask, mask_key

Array = np.ndarray[Any, Any]


class HalfSquares:
    """sum(w (p - t)^2 / 2) / sum(w)."""

    def terms(self, xp: Any, prediction: Any, target: Any, weight: Any) -> tuple[Any, Any]:
        weight = np.ones(len(target)) if weight is None else weight
        rest = prediction - target
        return (weight[:, None] * rest * rest).sum() / 2, weight.sum()

    def gradient(self, xp: Any, prediction: Any, target: Any, weight: Any) -> Any:
        return (prediction - target) * (1.0 if weight is None else weight[:, None])


class MeanOutput:
    """Sum of the outputs, and how many there are."""

    def terms(self, xp: Any, prediction: Any, target: Any, weight: Any) -> tuple[Any, Any]:
        return prediction.sum(), prediction.size


class Descent:
    """w - rate * g, with the gradient itself as a slot, and a copy under ``ema``."""

    slots: tuple[str, ...] = ("gradient", "ema")

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
        new = {name: array - coefficients[0] * gradients[name] for name, array in parameters.items()}
        return new, {"gradient": dict(gradients), "ema": dict(slots["ema"])}


def graph_of(layers: list[dict[str, Any]], **inputs: list[int]) -> Graph:
    given = {name: {"shape": shape} for name, shape in (inputs or {"x": [3]}).items()}
    return resolve(ModelSpec.model_validate({"inputs": given, "layers": layers}))


def plan_of(rows: Any, rate: float = 0.1, scale: float = 1.0, apply: Any = None, first_step: int = 0) -> Plan:
    indices = np.array(rows, dtype=np.int32)
    steps = len(indices)
    return Plan(
        indices,
        np.full((steps, 1), rate),
        np.full(steps, scale),
        np.ones(steps, dtype=np.bool_) if apply is None else np.array(apply),
        first_step,
    )


def program_of(graph: Graph, factor: float = 1.0, seed: int = 0, precision: Any = "float64") -> Program:
    (output,) = graph.outputs
    rule = TrainingRule({output: (factor, HalfSquares())}, [("mean", output, MeanOutput())], Descent())
    return BACKEND.compile(graph, initialize(graph, 0), Settings(seed=seed, precision=precision), rule)


@pytest.fixture
def data() -> Batchable:
    generator = np.random.default_rng(0)
    return Batchable(
        {"x": generator.normal(size=(8, 3))},
        {"out": generator.normal(size=(8, 2))},
        generator.uniform(0.5, 2, size=8),
    )


LINEAR: list[dict[str, Any]] = [{"type": "dense", "name": "out", "units": 2}]


def test_every_layer_type_is_implemented() -> None:
    assert BACKEND.layer_types() == LAYER_TYPES.keys()


def test_a_linear_layer_descends_as_by_hand(data: Batchable) -> None:
    program = program_of(graph_of(LINEAR), factor=3.0)
    before = program.weights()
    rows = [[0, 3, 5], [1, 2, 7]]
    statistics = program.run_steps(program.place(data), plan_of(rows))

    kernel, bias = before["out.kernel"], before["out.bias"]
    losses, sums = [], []
    assert data.weight is not None
    for chosen in rows:
        x, t, w = data.inputs["x"][chosen], data.targets["out"][chosen], data.weight[chosen]
        prediction = x @ kernel + bias
        rest = prediction - t
        losses.append(3 * (w @ (rest**2).sum(axis=1)) / 2 / w.sum())
        sums.append(prediction.sum())
        slope = 3 * w[:, None] * rest / w.sum()
        kernel, bias = kernel - 0.1 * x.T @ slope, bias - 0.1 * slope.sum(axis=0)

    np.testing.assert_allclose(statistics.losses, losses, rtol=1e-13)
    np.testing.assert_allclose(statistics.metric_terms["mean"], [[value, 6.0] for value in sums], rtol=1e-13)
    np.testing.assert_allclose(program.weights()["out.kernel"], kernel, rtol=1e-13)
    np.testing.assert_allclose(program.weights()["out.bias"], bias, rtol=1e-13)


def test_accumulated_batches_are_one_big_batch_even_across_blocks(data: Batchable) -> None:
    unweighted = Batchable(data.inputs, data.targets)
    big, small = program_of(graph_of(LINEAR)), program_of(graph_of(LINEAR))
    big.run_steps(big.place(unweighted), plan_of([range(8)]))
    placed = small.place(unweighted)
    start = small.weights()
    small.run_steps(placed, plan_of([[0, 1], [2, 3], [4, 5]], scale=0.25, apply=[False] * 3))
    np.testing.assert_array_equal(small.weights()["out.kernel"], start["out.kernel"])
    small.run_steps(placed, plan_of([[6, 7]], scale=0.25, first_step=3))
    for name, array in big.weights().items():
        np.testing.assert_allclose(small.weights()[name], array, rtol=1e-13)


def test_a_zero_denominator_is_a_zero_loss_and_no_gradient(data: Batchable) -> None:
    program = program_of(graph_of(LINEAR))
    before = program.weights()
    nothing = Batchable(data.inputs, data.targets, np.zeros(8))
    statistics = program.run_steps(program.place(nothing), plan_of([[0, 1]]))
    assert statistics.losses.tolist() == [0.0]
    for name, array in program.weights().items():
        np.testing.assert_array_equal(array, before[name])


NORMALISED: list[dict[str, Any]] = [{"type": "batch_norm", "name": "norm"}, *LINEAR]


def test_a_step_that_is_not_finite_ends_the_block_unapplied(data: Batchable) -> None:
    targets = data.targets["out"].copy()
    targets[5] = np.nan
    program = program_of(graph_of(NORMALISED))
    placed = program.place(Batchable(data.inputs, {"out": targets}))
    program.run_steps(placed, plan_of([[0, 1, 2]]))
    before, slots = program.weights(), program.slots()
    statistics = program.run_steps(placed, plan_of([[4, 5, 6], [0, 1, 2]]))
    assert len(statistics.losses) == 1
    assert np.isnan(statistics.losses[0])
    assert statistics.metric_terms["mean"].shape == (0, 2)
    for name, array in program.weights().items():
        np.testing.assert_array_equal(array, before[name])
    for slot, arrays in program.slots().items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, slots[slot][name])


def test_batch_statistics_move_the_running_ones(data: Batchable) -> None:
    program = program_of(graph_of(NORMALISED))
    program.run_steps(program.place(data), plan_of([[0, 1, 2, 3], [4, 5, 6, 7]], apply=[False, True]))
    first, second = data.inputs["x"][:4], data.inputs["x"][4:]
    mean = 0.9 * (0.1 * first.mean(axis=0)) + 0.1 * second.mean(axis=0)
    variance = 0.9 * (0.9 + 0.1 * first.var(axis=0)) + 0.1 * second.var(axis=0)
    np.testing.assert_allclose(program.weights()["norm.running_mean"], mean, rtol=1e-12)
    np.testing.assert_allclose(program.weights()["norm.running_variance"], variance, rtol=1e-12)


def test_a_batch_norm_used_twice_moves_its_statistics_twice() -> None:
    layers: list[dict[str, Any]] = [
        {"type": "batch_norm", "name": "norm"},
        {"type": "shared", "layer": "norm", "inputs": "other"},
        {"type": "add", "inputs": ["norm", "shared_1"]},
        *LINEAR,
    ]
    layers[0]["inputs"] = "x"
    graph = graph_of(layers, x=[3], other=[3])
    program = program_of(graph)
    generator = np.random.default_rng(1)
    x, other = generator.normal(size=(4, 3)), generator.normal(size=(4, 3))
    data = Batchable({"x": x, "other": other}, {"out": np.zeros((4, 2))})
    program.run_steps(program.place(data), plan_of([range(4)]))
    mean = 0.9 * 0.1 * x.mean(axis=0) + 0.1 * other.mean(axis=0)
    np.testing.assert_allclose(program.weights()["norm.running_mean"], mean, rtol=1e-12)


def test_gradients_of_a_shared_layer_add_up() -> None:
    layers: list[dict[str, Any]] = [
        {"type": "dense", "name": "one", "units": 3},
        {"type": "shared", "name": "two", "layer": "one"},
        {"type": "dense", "name": "out", "units": 2},
    ]
    shared = graph_of(layers)
    layers[1] = {"type": "dense", "name": "two", "units": 3}
    separate = graph_of(layers)
    weights = initialize(shared, 3)
    copied = {**weights, "two.kernel": weights["one.kernel"], "two.bias": weights["one.bias"]}
    settings = Settings(precision="float64")
    x, dy = np.random.default_rng(0).normal(size=(2, 5, 3))
    _, dx, together = BACKEND.compile(shared, weights, settings).differentiate({"x": x}, {"out": dy[:, :2]})
    _, dx_apart, apart = BACKEND.compile(separate, copied, settings).differentiate({"x": x}, {"out": dy[:, :2]})
    np.testing.assert_allclose(dx["x"], dx_apart["x"], rtol=1e-13)
    for part in ("kernel", "bias"):
        expected = apart[f"one.{part}"] + apart[f"two.{part}"]
        np.testing.assert_allclose(together[f"one.{part}"], expected, rtol=1e-13)


def test_dropout_masks_are_those_of_the_generator() -> None:
    graph = graph_of([{"type": "dropout", "name": "out", "rate": 0.25}], x=[5, 3])
    program = BACKEND.compile(graph, {}, Settings(seed=7))
    x = np.random.default_rng(0).normal(size=(4, 5, 3)).astype(np.float32)
    kept = keep_mask(mask_key(7, "dropout", "out"), 11, x.size, 0.25).reshape(x.shape)
    y = program.activations({"x": x}, training=True, step=11)["out"]
    np.testing.assert_allclose(y, np.where(kept, x / np.float32(0.75), 0), rtol=2e-7)
    assert 0.05 < 1 - kept.mean() < 0.5
    np.testing.assert_array_equal(program.activations({"x": x})["out"], x)


def test_a_block_is_the_same_as_its_steps_one_by_one() -> None:
    layers: list[dict[str, Any]] = [{"type": "dropout"}, *LINEAR]
    generator = np.random.default_rng(0)
    data = Batchable({"x": generator.normal(size=(6, 3))}, {"out": generator.normal(size=(6, 2))})
    whole, single = program_of(graph_of(layers), seed=5), program_of(graph_of(layers), seed=5)
    losses = whole.run_steps(whole.place(data), plan_of([[0, 1], [2, 3], [4, 5]], first_step=4)).losses
    placed = single.place(data)
    for step in range(3):
        done = single.run_steps(placed, plan_of([[2 * step, 2 * step + 1]], first_step=4 + step))
        assert done.losses[0] == losses[step]
    for name, array in whole.weights().items():
        np.testing.assert_array_equal(single.weights()[name], array)


def test_looking_changes_nothing(data: Batchable) -> None:
    program = program_of(graph_of(NORMALISED))
    before = program.weights()
    x = {"x": data.inputs["x"]}
    program.activations(x, training=True)
    program.differentiate(x, {"out": np.ones((8, 2))})
    program.predict(x)
    for name, array in program.weights().items():
        np.testing.assert_array_equal(array, before[name])


def test_slots_start_at_zero_or_as_the_parameter_and_come_back(data: Batchable) -> None:
    program = program_of(graph_of(NORMALISED))
    slots = program.slots()
    assert set(slots["gradient"]) == {"norm.scale", "norm.bias", "out.kernel", "out.bias"}
    assert not any(array.any() for array in slots["gradient"].values())
    np.testing.assert_array_equal(slots["ema"]["out.kernel"], program.weights()["out.kernel"])
    program.run_steps(program.place(data), plan_of([range(8)]))
    trained = program.slots()
    other = program_of(graph_of(NORMALISED))
    other.load_slots(trained)
    for slot, arrays in other.slots().items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, trained[slot][name])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's own")
def test_glibc_is_told_to_keep_freed_memory() -> None:
    assert keep_freed_memory()


def test_float32_stays_float32(data: Batchable) -> None:
    program = program_of(graph_of(NORMALISED), precision="float32")
    statistics = program.run_steps(program.place(data), plan_of([range(8)]))
    assert isinstance(statistics, Statistics)
    assert statistics.losses.dtype == np.float64
    arrays = [*program.weights().values(), *program.slots()["gradient"].values()]
    arrays += program.activations({"x": data.inputs["x"]}).values()
    assert {array.dtype for array in arrays} == {np.dtype(np.float32)}


def test_predict_in_chunks_is_predict_at_once(data: Batchable) -> None:
    program = program_of(graph_of(NORMALISED))
    x = {"x": data.inputs["x"]}
    np.testing.assert_allclose(program.predict(x, 3)["out"], program.predict(x)["out"], rtol=1e-14)
    assert program.predict({"x": np.empty((0, 3))})["out"].shape == (0, 2)


def test_raw_images_are_cast_as_they_are_gathered() -> None:
    program = program_of(graph_of(LINEAR), precision="float32")
    x = np.random.default_rng(0).integers(0, 256, size=(4, 3)).astype(np.uint8)
    t = np.zeros((4, 2))
    raw = program.run_steps(program.place(Batchable({"x": x}, {"out": t})), plan_of([range(4)], rate=0.0))
    cast = Batchable({"x": x.astype(np.float32)}, {"out": t})
    assert raw.losses[0] == program.run_steps(program.place(cast), plan_of([range(4)])).losses[0]


def test_an_output_that_is_not_asked_for_gets_zeros() -> None:
    spec = {
        "inputs": {"x": {"shape": [3]}, "y": {"shape": [3]}},
        "layers": [
            {"type": "dense", "name": "left", "units": 2, "inputs": "x"},
            {"type": "dense", "name": "right", "units": 2, "inputs": "y"},
        ],
        "outputs": ["left", "right"],
    }
    graph = resolve(ModelSpec.model_validate(spec))
    program = BACKEND.compile(graph, initialize(graph, 0), Settings())
    ones = np.ones((2, 3))
    _, inputs, parameters = program.differentiate({"x": ones, "y": ones}, {"left": np.ones((2, 2))})
    assert inputs["x"].any()
    assert not inputs["y"].any()
    assert not parameters["right.kernel"].any()
    assert parameters["right.kernel"].shape == (3, 2)


def test_what_nobody_asks_for_is_not_computed_and_changes_nothing() -> None:
    layers: list[dict[str, Any]] = [
        {"type": "conv2d", "filters": 2, "kernel_size": 2},
        {"type": "flatten"},
        *LINEAR,
    ]
    graph = graph_of(layers, x=[3, 3, 1])
    weights = {name: array.astype(np.float64) for name, array in initialize(graph, 0).items()}
    x, dy = {"x": np.random.default_rng(0).normal(size=(2, 3, 3, 1))}, {"out": np.ones((2, 2))}
    full = forward(graph, weights, x, Mode(True), differentiate=True, input_gradients=True)
    bare = forward(graph, weights, x, Mode(True), differentiate=True)
    assert {*bare.values} == {"out"}
    inputs, parameters = backward(bare, dy)
    inputs_full, parameters_full = backward(full, dy)
    assert inputs == {}
    assert inputs_full["x"].any()
    for name, gradient in parameters.items():
        np.testing.assert_array_equal(gradient, parameters_full[name])


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"z": np.ones((2, 3))}, "unknown input 'z'"),
        ({}, "the input 'x' is missing"),
        ({"x": np.ones((2, 4))}, "the input 'x' has the wrong shape"),
        ({"x": np.float64(1)}, "the input 'x' has the wrong shape"),
    ],
)
def test_inputs_that_do_not_fit_are_named(inputs: dict[str, Any], message: str) -> None:
    program = program_of(graph_of(LINEAR))
    with pytest.raises(InputError, match=message):
        program.activations(inputs)


@pytest.mark.parametrize("index", [-1, 4])
def test_an_index_outside_an_embedding_is_named(index: int) -> None:
    spec = {
        "inputs": {"word": {"shape": [2], "dtype": "integer"}},
        "layers": [{"type": "embedding", "name": "table", "vocabulary": 4, "width": 2}],
    }
    graph = resolve(ModelSpec.model_validate(spec))
    model = BACKEND.build(graph, initialize(graph, 0), Settings())
    with pytest.raises(InputError) as caught:
        model({"word": np.array([[0, index]])})
    problem = caught.value.problems[0]
    assert "table" in problem.message
    assert (problem.found, problem.allowed) == (str(index), "0 .. 3")
    with pytest.raises(InputError, match="must hold integers"):
        model(np.ones((1, 2)))


def test_a_model_is_called_with_one_array_and_refuses_foreign_weights() -> None:
    graph = graph_of(LINEAR)
    model = BACKEND.build(graph, initialize(graph, 0), Settings(precision="float64"))
    x = np.random.default_rng(0).normal(size=(2, 3))
    expected = x @ model.weights["out.kernel"] + model.weights["out.bias"]
    np.testing.assert_allclose(model(x)["out"], expected, rtol=1e-14)
    model.forward({"x": x}, training=True)
    inputs, parameters = model.backward({"out": np.ones((2, 2))})
    np.testing.assert_allclose(inputs["x"], np.ones((2, 2)) @ model.weights["out.kernel"].T)
    np.testing.assert_allclose(parameters["out.bias"], [2.0, 2.0])
    with pytest.raises(ValueError, match="call forward first"):
        model.backward({"out": np.ones((2, 2))})
    with pytest.raises(InputError, match=r"'out\.bias' is missing"):
        BACKEND.build(graph, {"out.kernel": np.ones((3, 2))}, Settings())


def test_the_order_of_given_weights_in_memory_changes_no_bit() -> None:
    """BLAS takes another kernel for a matrix that lies the other way round, such as what an orthogonal draw gives."""
    model = ModelSpec.model_validate({"inputs": {"x": {"shape": [37]}}, "layers": [{"type": "dense", "units": 19}]})
    graph = resolve(model)
    weights = initialize(graph, 0)
    turned = {name: np.asfortranarray(array) for name, array in weights.items()}
    x = np.random.default_rng(0).normal(size=(1, 37)).astype(np.float32)
    outputs = [BACKEND.compile(graph, given, Settings()).predict({"x": x})["dense_1"] for given in (weights, turned)]
    np.testing.assert_array_equal(*outputs)
