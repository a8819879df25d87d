"""torch's global state: set while a program runs, restored behind it, and never relied on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from unitrain.backends.contract import Batchable, Plan, Settings, TrainingRule
from unitrain.backends.torch import BACKEND
from unitrain.backends.torch.runtime import reproducible, seeded
from unitrain.graph.resolve import resolve
from unitrain.spec.losses import MeanSquaredError
from unitrain.spec.model import ModelSpec
from unitrain.spec.optimizers import Sgd
from unitrain.train.losses import make_loss
from unitrain.train.update import Update
from unitrain.weights.initialize import initialize


def flags() -> dict[str, Any]:
    cudnn = torch.backends.cudnn
    return {
        "enabled": cudnn.enabled,
        "benchmark": cudnn.benchmark,
        "deterministic": cudnn.deterministic,
        "tf32": cudnn.allow_tf32,
        "algorithms": torch.are_deterministic_algorithms_enabled(),
        "warn": torch.is_deterministic_algorithms_warn_only_enabled(),
    }


def test_reproducible_cuda_is_a_matter_of_the_run() -> None:
    before, inside = flags(), {}

    def fail() -> None:
        inside.update(flags())
        raise KeyError

    with pytest.raises(KeyError), reproducible(torch.device("cuda", 0)):
        fail()
    assert inside == {
        "enabled": before["enabled"],
        "benchmark": False,
        "deterministic": True,
        "tf32": False,
        "algorithms": True,
        "warn": True,
    }
    assert flags() == before
    with reproducible(torch.device("cpu")):
        assert flags() == before


def test_the_generator_goes_on_where_it_was() -> None:
    torch.manual_seed(1)
    expected = torch.rand(6)
    torch.manual_seed(1)
    first = torch.rand(2)
    with seeded(torch.device("cpu"), 2**63 + 5):
        inside = torch.rand(3)
    with pytest.raises(KeyError), seeded(torch.device("cpu"), 7):
        raise KeyError
    np.testing.assert_array_equal(torch.cat([first, torch.rand(4)]), expected)
    with seeded(torch.device("cpu"), 2**63 + 5):
        assert torch.equal(torch.rand(3), inside)


@pytest.fixture
def program() -> Any:
    graph = resolve(
        ModelSpec.model_validate(
            {"inputs": {"x": {"shape": [3]}}, "layers": [{"type": "dense", "name": "y", "units": 2}]}
        )
    )
    rule = TrainingRule({"y": (1.0, make_loss(MeanSquaredError()))}, (), Update(Sgd(), {"y.kernel": True}))
    return BACKEND.compile(graph, initialize(graph, 0), Settings(precision="float64"), rule)


def test_building_draws_nothing_from_the_generator(program: Any) -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    BACKEND.build(program.graph, program.weights(), Settings())
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_program_differentiates_whatever_the_caller_has_switched_off(program: Any, mode: Any) -> None:
    x, seeds = {"x": np.ones((2, 3))}, {"y": np.ones((2, 2))}
    expected = program.differentiate(x, seeds)
    with mode():
        found = program.differentiate(x, seeds)
        before = program.weights()["y.kernel"]
        plan = Plan(np.zeros((1, 2), np.int32), np.full((1, 2), 0.1), np.ones(1), np.ones(1, bool), 0)
        program.run_steps(program.place(Batchable(x, {"y": np.zeros((2, 2))})), plan)
        assert (program.weights()["y.kernel"] != before).any()
    for mine, other in zip(expected, found, strict=True):
        for name, array in mine.items():
            np.testing.assert_array_equal(other[name], array)
    assert expected[1]["x"].all()


def test_read_only_arrays_are_taken_without_a_warning(program: Any, recwarn: pytest.WarningsRecorder) -> None:
    x = np.ones((2, 3))
    x.flags.writeable = False
    program.place(Batchable({"x": x}, {"y": np.zeros((2, 2))}))
    program.predict({"x": x})
    assert not [warning for warning in recwarn if "writ" in str(warning.message)]


def test_a_model_without_parameters_has_gradients_by_its_inputs() -> None:
    graph = resolve(ModelSpec.model_validate({"inputs": {"x": {"shape": [3]}}, "layers": [{"type": "tanh"}]}))
    program = BACKEND.compile(graph, {}, Settings(precision="float64"))
    x = np.array([[0.5, -1.0, 0.0]])
    _, by_input, by_parameter = program.differentiate({"x": x}, {"tanh_1": np.ones((1, 3))})
    np.testing.assert_allclose(by_input["x"], 1.0 - np.tanh(x) ** 2, rtol=1e-12)
    assert by_parameter == {}


def test_what_is_given_away_is_nobody_elses_memory() -> None:
    layers: list[dict[str, Any]] = [{"type": "reshape", "name": "a", "shape": [2, 2]}, {"type": "flatten", "name": "b"}]
    graph = resolve(ModelSpec.model_validate({"inputs": {"x": {"shape": [4]}}, "layers": layers}))
    program = BACKEND.compile(graph, {}, Settings(precision="float64"))
    x, seeds = np.ones((3, 4)), np.ones((3, 4))
    values = program.activations({"x": x})
    outputs, by_input, _ = program.differentiate({"x": x}, {"b": seeds})
    arrays = [x, seeds, *values.values(), *outputs.values(), *by_input.values(), program.predict({"x": x})["b"]]
    for number, array in enumerate(arrays):
        assert not any(np.shares_memory(array, other) for other in arrays[number + 1 :])
