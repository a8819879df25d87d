"""torch's global state: set while a program runs, restored behind it, and never relied on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from unitrain.backends.contract import Batchable, Plan, Settings
from unitrain.backends.rule import TrainingRule
from unitrain.backends.torch import BACKEND, runtime
from unitrain.backends.torch import program as programs
from unitrain.backends.torch.runtime import reproducible, seeded, tensor_float32
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
        "tf32": before["tf32"],
        "algorithms": True,
        "warn": True,
    }
    assert flags() == before
    with reproducible(torch.device("cpu")):
        assert flags() == before


@pytest.fixture
def words() -> Iterator[dict[str, str]]:
    """Return what torch holds of TensorFloat-32, and put it back."""
    before = precisions()
    yield before
    cudnn: Any = torch.backends.cudnn
    torch.backends.cuda.matmul.fp32_precision = before["matmul"]
    cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision = before["conv"], before["rnn"]


def precisions() -> dict[str, str]:
    cudnn: Any = torch.backends.cudnn
    owners = {"matmul": torch.backends.cuda.matmul, "conv": cudnn.conv, "rnn": cudnn.rnn}
    return {name: owner.fp32_precision for name, owner in owners.items()}


@pytest.mark.parametrize(("allowed", "word"), [(False, "ieee"), (True, "tf32")])
@pytest.mark.parametrize("users", ["none", "tf32", "ieee"])
def test_tensor_float_32_is_a_matter_of_the_run(words: dict[str, str], allowed: bool, word: str, users: str) -> None:
    torch.backends.cuda.matmul.fp32_precision = users
    before, inside = precisions(), {}

    def fail() -> None:
        inside.update(precisions())
        raise KeyError

    device = torch.device("cuda", 0)
    with pytest.raises(KeyError), tensor_float32(device, allowed), reproducible(device):
        fail()
    assert inside == dict.fromkeys(before, word)
    assert precisions() == before
    with tensor_float32(torch.device("cpu"), allowed):
        assert precisions() == before


@pytest.mark.parametrize("allowed", [False, True])
def test_the_switches_of_older_torch(allowed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_WORDS", False)

    def switches() -> tuple[bool, bool]:
        return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32

    before = switches()
    with tensor_float32(torch.device("cuda", 0), allowed):
        assert switches() == (allowed, allowed)
    assert switches() == before


@pytest.mark.parametrize("tf32", [False, True])
def test_a_program_states_its_choice_whatever_it_does(tf32: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, bool]] = []

    @contextmanager
    def spy(device: torch.device, allowed: bool) -> Iterator[None]:
        seen.append((device.type, allowed))
        yield

    monkeypatch.setattr(programs, "tensor_float32", spy)
    one = made(Settings(tf32=tf32))
    x, targets = {"x": np.ones((2, 3), np.float32)}, {"y": np.zeros((2, 2), np.float32)}
    one.run_steps(one.place(Batchable(x, targets)), PLAN)
    one.predict(x)
    one.activations(x)
    one.differentiate(x, {"y": np.ones((2, 2), np.float32)})
    assert seen == [("cpu", tf32)] * 4


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


PLAN = Plan(np.zeros((1, 2), np.int32), np.full((1, 2), 0.1), np.ones(1), np.ones(1, bool), 0)


@pytest.fixture
def program() -> Any:
    return made(Settings(precision="float64"))


def made(settings: Settings) -> Any:
    graph = resolve(
        ModelSpec.model_validate(
            {"inputs": {"x": {"shape": [3]}}, "layers": [{"type": "dense", "name": "y", "units": 2}]}
        )
    )
    rule = TrainingRule({"y": (1.0, make_loss(MeanSquaredError()))}, (), Update(Sgd(), {"y.kernel": True}))
    return BACKEND.compile(graph, initialize(graph, 0), settings, rule)


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
        program.run_steps(program.place(Batchable(x, {"y": np.zeros((2, 2))})), PLAN)
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
