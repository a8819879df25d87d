"""Steps that are recorded and replayed, by a recorder that does on the CPU what a CUDA graph does.

It keeps the operations of a function with the tensors they read and write. A replay runs the same operations on the
same memory: a number of the host that went in stays as it was, and reading one from a tensor cannot be recorded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from conformance.cases import BATCH as CASE_BATCH
from conformance.cases import CASES, case_inputs, case_weights, suite_graph
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from unitrain.backends.contract import Batchable, Plan, Settings
from unitrain.backends.rule import TrainingRule
from unitrain.backends.torch import BACKEND, recorded
from unitrain.graph.graph import Graph
from unitrain.graph.resolve import resolve
from unitrain.spec.losses import CrossEntropy, MeanSquaredError
from unitrain.spec.metrics import Accuracy
from unitrain.spec.model import ModelSpec
from unitrain.spec.optimizers import Adam, Lion, Optimizer, Sgd
from unitrain.train.losses import make_loss
from unitrain.train.metrics import make_metric
from unitrain.train.update import Update
from unitrain.weights.initialize import initialize

SAMPLES, BATCH, STEPS = 40, 6, 70
LAYERS = [
    {"type": "conv2d", "name": "conv", "filters": 4, "kernel_size": 3, "padding": "same", "use_bias": False},
    {"type": "batch_norm", "name": "norm"},
    {"type": "relu", "name": "relu"},
    {"type": "max_pool2d", "name": "pool", "kernel_size": 2},
    {"type": "flatten", "name": "flat"},
    {"type": "dropout", "name": "drop", "rate": 0.3},
    {"type": "dense", "name": "logits", "units": 3},
]


# What makes the host wait, and what brings memory of the host to the device.
WAITS = ("aten._local_scalar_dense", "aten.nonzero", "aten.masked_select", "aten.equal", "aten.lift_fresh")


class Recorder(TorchDispatchMode):
    """Keeps operations, with the tensors themselves, and what was in memory before them."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, Any, bool]] = []
        self._before: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if str(function).startswith(WAITS):
            raise RuntimeError(f"{function} is not permitted while recording")
        for tensor in _tensors([*args, *kwargs.values()]):
            # All of what is held outside is used whole first, before a view of it is changed.
            self._before.setdefault(_memory(tensor), (tensor, tensor.clone()))
        found = function(*args, **kwargs)
        # The tensors as they lie now: their shape may be changed in place. Some kernels keep more for a backward pass.
        held = tree_map(_alias, (args, kwargs, found))
        self.operations.append((function, *held, torch.is_grad_enabled()))
        return found

    def restore(self) -> None:
        """Take back what was computed while recording: a GPU computes nothing there."""
        for tensor, before in self._before.values():
            tensor.copy_(before)

    def replay(self) -> None:
        for function, args, kwargs, found, differentiable in self.operations:
            # Below what records for a backward pass, as a recorded kernel is.
            with torch._C._AutoDispatchBelowAutograd(), torch.set_grad_enabled(differentiable):
                result = function(*tree_map(_alias, args), **tree_map(_alias, kwargs))
                for old, new in zip(_tensors(found), _tensors(result), strict=True):
                    if _memory(old) != _memory(new):
                        old.copy_(new)


def _alias(value: Any) -> Any:
    return value.detach() if isinstance(value, torch.Tensor) else value


def _memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _tensors(found: Any) -> list[torch.Tensor]:
    if isinstance(found, torch.Tensor):
        return [found.detach()]
    return [tensor for one in found for tensor in _tensors(one)] if isinstance(found, tuple | list) else []


@pytest.fixture
def recordings(monkeypatch: pytest.MonkeyPatch) -> list[Recorder]:
    """Put the recorder in the place of CUDA's; return what is recorded."""
    made: list[Recorder] = []

    def record(function: Callable[[], recorded.Found], device: torch.device) -> tuple[Callable[[], None], Any]:
        # A tensor that is made without a word about its device would lie on the host: here, nowhere.
        with Recorder() as recorder, torch.device("meta"):
            found = function()
        recorder.restore()
        made.append(recorder)
        return recorder.replay, found

    monkeypatch.setattr(recorded, "record", record)
    monkeypatch.setattr(recorded, "run_aside", lambda function, device: function().copied())
    return made


@pytest.fixture(scope="module")
def graph() -> Graph:
    return resolve(ModelSpec.model_validate({"inputs": {"image": {"shape": [6, 6, 1]}}, "layers": LAYERS}))


def data(bad: int | None = None) -> Batchable:
    generator = np.random.default_rng(0)
    images = generator.normal(size=(SAMPLES, 6, 6, 1)).astype(np.float32)
    if bad is not None:
        images[bad] = np.inf
    return Batchable({"image": images}, {"logits": generator.integers(0, 3, SAMPLES).astype(np.int32)})


def program(graph: Graph, spec: Optimizer, form: str, precision: Any = "float32", *, deterministic: bool = True) -> Any:
    update = Update(spec, {name: parameter.decay for name, parameter in graph.parameters.items()})
    rule = TrainingRule(
        {"logits": (1.0, make_loss(CrossEntropy()))}, [("accuracy", "logits", make_metric(Accuracy()))], update
    )
    settings = Settings(precision=precision, seed=3, execution=form, deterministic=deterministic)
    made: Any = BACKEND.compile(graph, initialize(graph, 1), settings, rule)
    return made


def plan(spec: Optimizer, steps: int = STEPS, first: int = 0, indices: Any = None) -> Plan:
    update = Update(spec, {})
    rates = np.linspace(0.02, 0.001, STEPS)[first : first + steps]
    drawn = np.random.default_rng(5).integers(0, SAMPLES, (STEPS, BATCH)).astype(np.int32)[first : first + steps]
    return Plan(
        drawn if indices is None else indices,
        update.coefficients(rates, first),
        np.ones(steps),
        np.ones(steps, bool),
        first,
    )


OPTIMIZERS = {
    "sgd": Sgd(momentum=0.9, weight_decay=0.01),
    "adam": Adam(weight_decay=0.01, clip_norm=0.5, ema=0.9),
    "adam b": Adam(beta1=0.99, beta2=0.5),
    "lion": Lion(),
}


# torch's kernel for Adam takes its scalars in another form when they are recorded, and rounds elsewhere. All other
# operations are the same ones: bits are too.
BOUNDS = {"float32": {"rtol": 2e-4, "atol": 2e-6}, "float64": {"rtol": 1e-9, "atol": 1e-12}}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_replayed_steps_are_those_taken_one_by_one(graph: Graph, recordings: list[Recorder], optimizer: str) -> None:
    spec = OPTIMIZERS[optimizer]
    found = {}
    for form in ("eager", "recorded"):
        for precision in ("float32", "float64"):
            made = program(graph, spec, form, precision)
            placed = made.place(data())
            blocks = [made.run_steps(placed, plan(spec, steps, first)) for first, steps in ((0, 64), (64, 6))]
            found[form, precision] = (
                np.concatenate([block.losses for block in blocks]),
                np.concatenate([block.metric_terms["accuracy"] for block in blocks]),
                made.weights(),
                made.slots(),
            )
    # Of 16 steps and of one, in both precisions.
    assert len(recordings) == 4
    for precision in ("float32", "float64"):
        eager, replayed = found["eager", precision], found["recorded", precision]
        np.testing.assert_array_equal(eager[1], replayed[1])
        bound = BOUNDS[precision] if isinstance(spec, Adam) else {"rtol": 0.0, "atol": 0.0}
        np.testing.assert_allclose(replayed[0], eager[0], **bound)
        for name, array in eager[2].items():
            np.testing.assert_allclose(replayed[2][name], array, err_msg=name, **bound)
        for slot, arrays in eager[3].items():
            for name, array in arrays.items():
                np.testing.assert_allclose(replayed[3][slot][name], array, err_msg=f"{slot} {name}", **bound)


def test_steps_from_a_bad_loss_on_change_nothing(graph: Graph, recordings: list[Recorder]) -> None:
    spec = Sgd(momentum=0.9)
    order = np.arange(STEPS * BATCH, dtype=np.int32).reshape(STEPS, BATCH) % (SAMPLES - 1)
    made = program(graph, spec, "recorded")
    placed = made.place(data(bad=SAMPLES - 1))
    # Within the third group of 16, which is recorded.
    order[35, 2] = SAMPLES - 1
    eager = program(graph, spec, "eager")
    for one in (eager, made):
        found = one.run_steps(placed, plan(spec, indices=order))
        assert len(found.losses) == 36
        assert not np.isfinite(found.losses[-1])
        assert np.all(np.isfinite(found.losses[:-1]))
        assert len(found.metric_terms["accuracy"]) == 35
    assert len(recordings) == 2
    np.testing.assert_equal(made.weights(), eager.weights())
    np.testing.assert_equal(made.slots(), eager.slots())
    # The next block begins sound.
    np.testing.assert_array_equal(
        made.run_steps(placed, plan(spec, 3, 0, order[:3])).losses,
        eager.run_steps(placed, plan(spec, 3, 0, order[:3])).losses,
    )


def test_weights_that_are_loaded_are_those_that_recordings_change(graph: Graph, recordings: list[Recorder]) -> None:
    spec = Sgd()
    made, eager = program(graph, spec, "recorded"), program(graph, spec, "eager")
    placed = made.place(data())
    for one in (made, eager):
        one.run_steps(placed, plan(spec))
        one.load_weights(initialize(graph, 2))
        one.run_steps(placed, plan(spec))
    np.testing.assert_equal(made.weights(), eager.weights())
    assert recordings


def test_accumulated_steps_and_other_batches_are_taken_as_they_come(graph: Graph, recordings: list[Recorder]) -> None:
    spec = Sgd(momentum=0.5)
    made, eager = program(graph, spec, "recorded"), program(graph, spec, "eager")
    placed = made.place(data())
    half = plan(spec, 6)
    accumulated = Plan(half.indices, half.coefficients, np.full(6, 0.5), np.array([False, True] * 3), 0)
    short = plan(spec, 40, 0, plan(spec, 40).indices[:, :2])
    for one in (made, eager):
        for block in (accumulated, short, plan(spec), accumulated):
            one.run_steps(placed, block)
    np.testing.assert_equal(made.weights(), eager.weights())
    assert len(recordings) == 3


def test_masks_of_torch_s_own_dropout_differ_from_step_to_step(graph: Graph, recordings: list[Recorder]) -> None:
    spec = Sgd()
    # The same samples and nearly the same weights: losses differ by what is dropped.
    still = plan(spec, 40, 0, np.tile(np.arange(BATCH, dtype=np.int32), (40, 1)))
    still = Plan(still.indices, still.coefficients * 0.0, still.scale, still.apply, 0)
    runs = []
    for _ in range(2):
        made = program(graph, spec, "recorded", deterministic=False)
        runs.append(made.run_steps(made.place(data()), still).losses)
    assert len(np.unique(runs[0])) > 35
    np.testing.assert_array_equal(runs[0], runs[1])


def test_every_layer_can_be_recorded(recordings: list[Recorder]) -> None:
    names = {f"{case.layer.type}_{number}": case for number, case in enumerate(CASES)}
    weights: dict[str, Any] = {}
    given: dict[str, Any] = {}
    for name, case in names.items():
        weights |= case_weights(case, name)
        given |= case_inputs(case, name)
    graph = suite_graph(names)
    spec = Sgd()
    shapes = {output: graph.shape(name) for output, name in graph.outputs.items()}
    samples = Batchable(given, {output: np.zeros((CASE_BATCH, *shape), np.float32) for output, shape in shapes.items()})
    rule = TrainingRule(
        {output: (1e-3, make_loss(MeanSquaredError())) for output in shapes},
        (),
        Update(spec, dict.fromkeys(weights, True)),
    )
    rows = np.tile(np.arange(CASE_BATCH, dtype=np.int32), (4, 1))
    steps = Plan(rows, Update(spec, {}).coefficients(np.full(4, 1e-3), 0), np.ones(4), np.ones(4, bool), 0)
    found = {}
    for form in ("eager", "recorded"):
        made: Any = BACKEND.compile(graph, weights, Settings(seed=3, execution=form), rule)
        found[form] = made.run_steps(made.place(samples), steps).losses, made.weights()
    assert len(recordings) == 1
    assert np.all(np.isfinite(found["eager"][0]))
    np.testing.assert_array_equal(found["recorded"][0], found["eager"][0])
    np.testing.assert_equal(found["recorded"][1], found["eager"][1])
