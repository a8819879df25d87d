"""The program that runs ONNX models: weights in and out, odd inputs, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import pytest

from unitrain.backends import TRAINING_BACKENDS, load_backend, load_training_backend
from unitrain.backends.contract import Batchable, Plan, Settings
from unitrain.backends.onnx import BACKEND
from unitrain.backends.onnx import program as program_module
from unitrain.backends.onnx.program import OnnxProgram
from unitrain.backends.rule import TrainingRule
from unitrain.graph.graph import Graph
from unitrain.graph.resolve import resolve
from unitrain.spec.errors import InputError
from unitrain.spec.losses import MeanSquaredError
from unitrain.spec.model import ModelSpec
from unitrain.spec.optimizers import Sgd
from unitrain.train.losses import make_loss
from unitrain.train.update import Update
from unitrain.weights.initialize import initialize


@pytest.fixture
def graph() -> Graph:
    """An image and a word go in; a float and an integer come out."""
    layers: list[dict[str, Any]] = [
        {"type": "conv2d", "name": "conv", "filters": 3, "kernel_size": 2, "inputs": "image", "activation": "relu"},
        {"type": "global_average_pool", "name": "pool"},
        {"type": "reshape", "name": "line", "shape": [2], "inputs": "words"},
        {"type": "embedding", "name": "table", "vocabulary": 5, "width": 3},
        {"type": "flatten", "name": "flat"},
        {"type": "concatenate", "name": "both", "inputs": ["pool", "flat"]},
        {"type": "dense", "name": "y", "units": 2},
        {"type": "concatenate", "name": "twice", "inputs": ["words", "words"]},
    ]
    inputs = {"image": {"shape": [4, 5, 2]}, "words": {"shape": [2, 1], "dtype": "integer"}}
    return resolve(ModelSpec.model_validate({"inputs": inputs, "layers": layers, "outputs": ["y", "twice"]}))


def inputs_of(batch: int = 3) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    return {
        "image": generator.normal(size=(batch, 4, 5, 2)).astype(np.float32),
        "words": generator.integers(0, 5, (batch, 2, 1), np.int32),
    }


def test_it_predicts_what_numpy_does(graph: Graph) -> None:
    weights = initialize(graph, 0)
    program = OnnxProgram(graph, weights, Settings())
    reference = load_backend("numpy").compile(graph, weights, Settings(precision="float64"))
    found, wanted = program.predict(inputs_of(7), batch_size=3), reference.predict(inputs_of(7))
    assert list(found) == ["y", "twice"]
    np.testing.assert_allclose(found["y"], wanted["y"], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found["twice"], wanted["twice"])
    assert found["twice"].dtype == np.int32
    inside = program.activations(inputs_of())
    assert list(inside) == [node.name for node in graph.nodes]
    for name, array in reference.activations(inputs_of()).items():
        np.testing.assert_allclose(inside[name], array, rtol=1e-5, atol=1e-6, err_msg=name)


def test_no_samples_give_empty_outputs(graph: Graph) -> None:
    for precision in ("float32", "float64"):
        program = OnnxProgram(graph, initialize(graph, 0), Settings(precision=precision))
        found = program.predict(inputs_of(0))
        assert (found["y"].shape, found["y"].dtype) == ((0, 2), np.dtype(precision))
        assert (found["twice"].shape, found["twice"].dtype) == ((0, 2, 2), np.int32)


def test_inputs_are_brought_into_the_models_kind(graph: Graph) -> None:
    """Images of bytes, numbers in another precision, other integers, and arrays that are not contiguous."""
    program = OnnxProgram(graph, initialize(graph, 0), Settings())
    image, words = (inputs_of()["image"] * 50).astype(np.uint8), inputs_of()["words"]
    wanted = program.predict({"image": image.astype(np.float32), "words": words})["y"]
    for given in (
        {"image": image, "words": words.astype(np.int64)},
        {"words": words.astype(np.uint8), "image": image.astype(np.float64)},
        {"image": np.asfortranarray(image), "words": words[:, ::-1][:, ::-1]},
    ):
        np.testing.assert_array_equal(program.predict(given)["y"], wanted)


def test_weights_come_back_as_they_went_in(graph: Graph) -> None:
    first, second = initialize(graph, 0), initialize(graph, 1)
    program = OnnxProgram(graph, first, Settings())
    before = program.predict(inputs_of())["y"]
    inside = program.activations(inputs_of())["y"]
    program.load_weights(second)
    found = program.weights()
    assert found.keys() == second.keys()
    for name, array in second.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == np.float32
    assert (program.predict(inputs_of())["y"] != before).any()
    assert (program.activations(inputs_of())["y"] != inside).any()
    # What was given out and taken in is nobody else's memory.
    for array in (*found.values(), *second.values()):
        array[...] = 7.0
    program.load_weights({name: array.copy() for name, array in program.weights().items()})
    np.testing.assert_array_equal(program.weights()["y.kernel"], initialize(graph, 1)["y.kernel"])


REFUSED: dict[str, Callable[[OnnxProgram], Any]] = {
    "run_steps": lambda program: program.run_steps(
        None, Plan(np.zeros((1, 1), np.int32), np.zeros((1, 1)), np.ones(1), np.ones(1, np.bool_), 0)
    ),
    "place": lambda program: program.place(Batchable(inputs_of(), {})),
    "slots": lambda program: program.slots(),
    "load_slots": lambda program: program.load_slots({}),
    "differentiate": lambda program: program.differentiate(inputs_of(), {}),
    "activations in training": lambda program: program.activations(inputs_of(), training=True),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_needs_training_is_refused(graph: Graph, what: str) -> None:
    program = OnnxProgram(graph, initialize(graph, 0), Settings())
    with pytest.raises(InputError, match="inference only"):
        REFUSED[what](program)


def test_a_training_rule_is_refused(graph: Graph) -> None:
    rule = TrainingRule({"y": (1.0, make_loss(MeanSquaredError()))}, (), Update(Sgd(), {}))
    with pytest.raises(InputError, match="inference only"):
        BACKEND.compile(graph, initialize(graph, 0), Settings(), rule)
    with pytest.raises(InputError, match="inference only") as caught:
        load_training_backend("onnx")
    assert caught.value.problems[0].allowed == ", ".join(TRAINING_BACKENDS)
    with pytest.raises(InputError, match="unknown backend"):
        load_training_backend("onxx")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda given: given.pop("image"), "'image' is missing"),
        (lambda given: given.update(other=np.zeros(3)), "unknown input 'other'"),
        (lambda given: given.update(image=np.zeros((3, 2, 4, 5))), "'image' has the wrong shape"),
        (lambda given: given.update(image=np.float32(1)), "'image' has the wrong shape"),
        (lambda given: given.update(image=given["image"][:2]), "different numbers of samples"),
        (lambda given: given.update(words=given["words"] + 0.5), "must hold integers"),
        (lambda given: given.update(words=given["words"] - 5), "outside its table"),
        (lambda given: given.update(words=given["words"] + np.int64(2**32)), "outside its table"),
    ],
)
def test_wrong_inputs_are_named(graph: Graph, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    program = OnnxProgram(graph, initialize(graph, 0), Settings())
    given = inputs_of()
    change(given)
    with pytest.raises(InputError, match=message):
        program.predict(given)
    with pytest.raises(InputError, match=message):
        program.activations(given)


def test_weights_that_do_not_fit_are_named(graph: Graph) -> None:
    with pytest.raises(InputError, match=r"'y\.bias' is missing"):
        OnnxProgram(graph, {"y.kernel": np.zeros((9, 2))}, Settings())


def test_what_onnxruntime_lacks_is_said(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented("Could not find an implementation for Conv")

    monkeypatch.setattr(program_module.onnxruntime, "InferenceSession", refuse)
    with pytest.raises(InputError, match="Could not find an implementation for Conv"):
        OnnxProgram(graph, initialize(graph, 0), Settings())


@pytest.mark.parametrize(("variable", "threads"), [("1", 1), ("3", 3), ("2,4", 2)])
def test_threads_are_the_environments(
    graph: Graph, monkeypatch: pytest.MonkeyPatch, variable: str, threads: int
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", variable)
    program = OnnxProgram(graph, initialize(graph, 0), Settings())
    options = program._session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (threads, 1)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_little_work_stays_on_the_calling_thread(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    program = OnnxProgram(graph, initialize(graph, 0), Settings())
    most = program_module.SMALL // graph.macs
    assert program._session_for(most).get_session_options().intra_op_num_threads == 1
    assert program._session_for(most + 1) is program._session
    weights = {name: array + 1.0 for name, array in initialize(graph, 0).items()}
    small = program._session_for(1)
    program.load_weights(weights)
    assert program._session_for(1) is not small


@pytest.mark.parametrize("variable", ["", "none", "0"])
def test_without_a_number_of_threads_there_is_one_a_processor(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", variable)
    monkeypatch.setattr(program_module.os, "sched_getaffinity", lambda _: {3, 5, 6}, raising=False)
    assert program_module._threads() == 3


def test_the_backend_builds_models_that_onnxruntime_runs(graph: Graph) -> None:
    weights = initialize(graph, 0)
    model = BACKEND.build(graph, weights, Settings(precision="float64"))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert [given.type for given in session.get_inputs()] == ["tensor(double)", "tensor(int32)"]
    assert [given.shape for given in session.get_inputs()] == [["batch", 4, 5, 2], ["batch", 2, 1]]
    given = inputs_of()
    (found,) = session.run(["y"], {"image": given["image"].astype(np.float64), "words": given["words"]})
    reference = load_backend("numpy").compile(graph, weights, Settings(precision="float64"))
    np.testing.assert_allclose(found, reference.predict(given)["y"], rtol=1e-13)


def test_without_the_packages_the_line_that_installs_them_is_printed() -> None:
    code = (
        "import sys; sys.modules['onnx'] = None\n"
        "from unitrain.backends import load_backend\nfrom unitrain.spec.errors import InputError\n"
        "try:\n    load_backend('onnx')\nexcept InputError as error:\n    print(error)\n"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "needs onnx, which is not installed" in printed
    assert "pip install 'unitrain[onnx]'" in printed
