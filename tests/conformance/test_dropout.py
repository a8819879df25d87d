"""In deterministic mode every backend drops the same elements, bit for bit and step by step."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from unitrain.backends import BACKENDS, TRAINING_BACKENDS, load_backend
from unitrain.backends.contract import Batchable, Plan, Precision, Settings
from unitrain.backends.rule import TrainingRule
from unitrain.graph.graph import Graph
from unitrain.graph.resolve import resolve
from unitrain.spec.losses import MeanSquaredError
from unitrain.spec.model import ModelSpec
from unitrain.spec.optimizers import Sgd
from unitrain.train.losses import make_loss
from unitrain.train.update import Update
from unitrain.weights.random import keep_mask, mask_key

Array = np.ndarray[Any, Any]

SEED, BATCH = 11, 6
# An odd number of elements, so that the last word of a mask stands alone; more than the batch divides.
SHAPES = {"row": (5,), "image": (3, 5, 3)}
RATES = {"row": 0.3, "image": 0.75}
# The step is one 32-bit word of the generator's counter.
STEPS = [0, 1, 2, 1000, 2**31, 2**32 - 1, 2**32 + 1]


@cache
def graph() -> Graph:
    layers: list[dict[str, Any]] = [
        {"type": "dropout", "name": name, "rate": RATES[name], "inputs": f"{name}_in"} for name in SHAPES
    ]
    # The same rate and shape under another name, and a rate of 0.
    layers += [
        {"type": "dropout", "name": "twin", "rate": RATES["row"], "inputs": "row_in"},
        {"type": "dropout", "name": "none", "rate": 0.0, "inputs": "row_in"},
    ]
    inputs = {f"{name}_in": {"shape": list(shape)} for name, shape in SHAPES.items()}
    names = [layer["name"] for layer in layers]
    return resolve(ModelSpec.model_validate({"inputs": inputs, "layers": layers, "outputs": names}))


@cache
def program(backend: str, precision: Precision, seed: int = SEED) -> Any:
    return load_backend(backend).compile(graph(), {}, Settings(precision=precision, seed=seed))


def ones(batch: int = BATCH, precision: Precision = "float32") -> dict[str, Array]:
    return {f"{name}_in": np.ones((batch, *shape), precision) for name, shape in SHAPES.items()}


def expected(name: str, step: int, batch: int = BATCH, seed: int = SEED) -> Array:
    shape = SHAPES.get(name, SHAPES["row"])
    rate = RATES.get(name, RATES["row"])
    size = batch * int(np.prod(shape))
    return keep_mask(mask_key(seed, "dropout", name), step, size, rate).reshape(batch, *shape)


@pytest.mark.parametrize("backend", TRAINING_BACKENDS)
@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("step", STEPS)
def test_masks_are_the_definition(backend: str, precision: Precision, step: int) -> None:
    found = program(backend, precision).activations(ones(precision=precision), training=True, step=step)
    for name in (*SHAPES, "twin"):
        rate = RATES.get(name, RATES["row"])
        np.testing.assert_array_equal(found[name] != 0, expected(name, step), err_msg=name)
        kept = found[name][found[name] != 0]
        np.testing.assert_allclose(kept, 1.0 / (1.0 - rate), rtol=2 * np.finfo(precision).eps)
    np.testing.assert_array_equal(found["none"], ones(precision=precision)["row_in"])


@pytest.mark.parametrize("backend", TRAINING_BACKENDS)
def test_the_gradient_goes_where_the_value_went(backend: str) -> None:
    gradients = {name: np.ones((BATCH, *graph().shape(name)), np.float32) for name in graph().outputs}
    gradients["twin"] *= 0
    gradients["none"] *= 0
    outputs, by_input, _ = program(backend, "float32").differentiate(ones(), gradients, training=True, step=4)
    for name in SHAPES:
        np.testing.assert_array_equal(by_input[f"{name}_in"], outputs[name])


@pytest.mark.parametrize("backend", TRAINING_BACKENDS)
def test_masks_follow_the_batch_size(backend: str) -> None:
    """A mask is drawn for the whole batch: those of two sizes at one step are different things."""
    for batch in (1, 3, BATCH):
        found = program(backend, "float32").activations(ones(batch), training=True, step=7)
        for name in SHAPES:
            np.testing.assert_array_equal(found[name] != 0, expected(name, 7, batch), err_msg=name)


@pytest.mark.parametrize("backend", TRAINING_BACKENDS)
def test_seed_name_and_step_each_change_the_mask(backend: str) -> None:
    first = program(backend, "float32").activations(ones(), training=True, step=0)
    later = program(backend, "float32").activations(ones(), training=True, step=1)
    other = program(backend, "float32", SEED + 1).activations(ones(), training=True, step=0)
    assert (first["image"] != later["image"]).any()
    assert (first["image"] != other["image"]).any()
    assert (first["row"] != first["twin"]).any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_inference_drops_nothing(backend: str) -> None:
    found = program(backend, "float32").predict(ones())
    for name, array in found.items():
        np.testing.assert_array_equal(array, 1.0, err_msg=name)


@pytest.mark.parametrize("backend", TRAINING_BACKENDS)
def test_a_block_counts_its_steps_from_the_plans_first(backend: str) -> None:
    """Two blocks are one long block: read back from a bias whose gradient is the mask."""
    layers = [
        {"type": "dense", "name": "line", "units": 7, "kernel_initializer": "zeros", "bias_initializer": "ones"},
        {"type": "dropout", "name": "y", "rate": 0.5},
    ]
    model = resolve(ModelSpec.model_validate({"inputs": {"x": {"shape": [1]}}, "layers": layers}))
    start = {"line.kernel": np.zeros((1, 7), np.float32), "line.bias": np.ones(7, np.float32)}
    update = Update(Sgd(), {"line.kernel": True, "line.bias": False})
    rule = TrainingRule({"y": (1.0, make_loss(MeanSquaredError()))}, (), update)
    trained = load_backend(backend).compile(model, start, Settings(precision="float64", seed=SEED), rule)
    placed = trained.place(Batchable({"x": np.zeros((1, 1))}, {"y": np.zeros((1, 7))}))
    bias = np.ones(7)
    for first, steps in ((40, 3), (43, 2)):
        coefficients = update.coefficients(np.full(steps, 0.1), 0)
        apply = np.ones(steps, dtype=bool)
        trained.run_steps(placed, Plan(np.zeros((steps, 1), np.int32), coefficients, np.ones(steps), apply, first))
        for step in range(first, first + steps):
            scale = 2.0 * keep_mask(mask_key(SEED, "dropout", "y"), step, 7, 0.5)
            bias -= 0.1 * 2.0 * scale * (scale * bias) / 7
        np.testing.assert_allclose(trained.weights()["line.bias"], bias, rtol=1e-12)
