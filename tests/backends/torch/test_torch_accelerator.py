"""How blocks run where numbers cannot be read in passing, held to how they run on the CPU.

On an accelerator nothing is read before the end of a block; a flag on the device stops what must not be applied.
That way of running needs no accelerator: here the CPU takes it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from unitrain.backends.contract import Batchable, Plan, Precision, Settings, Statistics
from unitrain.backends.rule import TrainingRule
from unitrain.backends.torch import BACKEND
from unitrain.graph.graph import Graph
from unitrain.graph.resolve import resolve
from unitrain.spec.losses import CrossEntropy
from unitrain.spec.metrics import Accuracy
from unitrain.spec.model import ModelSpec
from unitrain.spec.optimizers import Adam
from unitrain.train.losses import make_loss
from unitrain.train.metrics import make_metric
from unitrain.train.update import Update
from unitrain.weights.initialize import initialize

SAMPLES, BATCH = 20, 4


@pytest.fixture(scope="module")
def graph() -> Graph:
    layers = [
        {"type": "padding", "name": "pad", "amounts": [1, 1], "mode": "reflect"},
        {"type": "conv2d", "name": "conv", "filters": 3, "kernel_size": 3, "strides": 2, "padding": "same"},
        {"type": "batch_norm", "name": "norm"},
        {"type": "max_pool2d", "name": "pool", "kernel_size": 2},
        {"type": "flatten", "name": "flat"},
        {"type": "dropout", "name": "drop", "rate": 0.3},
        {"type": "dense", "name": "logits", "units": 3},
    ]
    return resolve(ModelSpec.model_validate({"inputs": {"x": {"shape": [6, 6, 2]}}, "layers": layers}))


def data(bad: int | None = None) -> Batchable:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(SAMPLES, 6, 6, 2))
    if bad is not None:
        x[bad] = np.nan
    return Batchable({"x": x}, {"logits": generator.integers(0, 3, SAMPLES).astype(np.int32)})


class Run:
    """A program that reads losses in passing, or one that does not."""

    def __init__(self, graph: Graph, reads: bool, precision: Precision = "float64") -> None:
        self.update = Update(Adam(clip_norm=1.0, ema=0.9), dict.fromkeys(graph.parameters, True))
        loss = CrossEntropy(class_weights=(1.0, 2.0, 0.5))
        rule = TrainingRule(
            {"logits": (1.0, make_loss(loss))}, [("accuracy", "logits", make_metric(Accuracy()))], self.update
        )
        self.program: Any = BACKEND.compile(graph, initialize(graph, 0), Settings(precision=precision), rule)
        assert self.program._reads
        self.program._reads = reads

    def steps(
        self, samples: Batchable, first: int, count: int, accumulate: int = 1, loss_scale: float | None = None
    ) -> Statistics:
        """Train over the samples in their order, five batches of them."""
        numbers = np.arange(first, first + count)
        plan = Plan(
            (numbers[:, None] * BATCH + np.arange(BATCH)).astype(np.int32) % SAMPLES,
            self.update.coefficients(np.full(100, 0.01), 0)[numbers // accumulate],
            np.full(count, 1.0 / accumulate),
            numbers % accumulate == accumulate - 1,
            first,
            loss_scale,
        )
        found: Statistics = self.program.run_steps(self.program.place(samples), plan)
        return found

    def state(self) -> dict[str, Any]:
        """Return everything that training changes."""
        slots = self.program.slots()
        state = {f"{slot} {name}": array for slot, arrays in slots.items() for name, array in arrays.items()}
        pending = {f"pending {number}": tensor.numpy() for number, tensor in enumerate(self.program._pending)}
        return {**self.program.weights(), **state, **pending}


def assert_equal(first: Run, second: Run) -> None:
    expected, found = first.state(), second.state()
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_sound_blocks_are_the_same(graph: Graph, accumulate: int) -> None:
    runs = [Run(graph, reads) for reads in (True, False)]
    for first, count in ((0, 3), (3, 4)):
        read, unread = (run.steps(data(), first, count, accumulate) for run in runs)
        np.testing.assert_array_equal(unread.losses, read.losses)
        np.testing.assert_equal(unread.metric_terms, read.metric_terms)
    assert_equal(*runs)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_nothing_is_applied_from_the_first_bad_loss_on(graph: Graph, accumulate: int) -> None:
    # The bad sample is in step 4, the second of the second update where three are accumulated.
    runs = [Run(graph, reads) for reads in (True, False)]
    read, unread = (run.steps(data(bad=4 * BATCH + 1), 0, 5, accumulate) for run in runs)
    assert len(read.losses) == 5
    assert np.isnan(read.losses[-1])
    np.testing.assert_array_equal(unread.losses, read.losses)
    np.testing.assert_equal(unread.metric_terms, read.metric_terms)
    np.testing.assert_array_equal(unread.metric_terms["accuracy"][:, 1], [BATCH] * 4)
    assert_equal(*runs)


def test_steps_after_a_bad_one_are_in_vain(graph: Graph) -> None:
    runs = [Run(graph, reads) for reads in (True, False)]
    read, unread = (run.steps(data(bad=BATCH), 0, 5) for run in runs)
    assert len(read.losses) == 2
    np.testing.assert_array_equal(unread.losses, read.losses)
    assert_equal(*runs)


class Reads(TorchDispatchMode):
    """Counts what makes the host wait for a device: numbers read, and sizes that depend on values."""

    waits = ("aten._local_scalar_dense", "aten.nonzero", "aten.masked_select", "aten.equal", "aten._unique2")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if str(func).startswith(self.waits):
            self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("reads", [True, False])
def test_a_block_reads_nothing_before_its_end(graph: Graph, reads: bool) -> None:
    run = Run(graph, reads)
    with Reads() as counter:
        run.steps(data(), 0, 4)
    assert len(counter.seen) == (4 if reads else 0)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_scaled_block_of_mixed_precision_reads_nothing_before_its_end(graph: Graph, accumulate: int) -> None:
    runs = [Run(graph, reads, "mixed_float16") for reads in (True, False)]
    read = runs[0].steps(data(), 0, 4, accumulate, 2.0**12)
    with Reads() as counter:
        unread = runs[1].steps(data(), 0, 4, accumulate, 2.0**12)
    assert not counter.seen
    assert not read.skipped
    np.testing.assert_array_equal(unread.losses, read.losses)
    np.testing.assert_equal(unread.metric_terms, read.metric_terms)
    assert_equal(*runs)


def test_steps_after_a_skipped_update_are_in_vain(graph: Graph) -> None:
    # Such a scale makes every gradient infinite in float16.
    runs = [Run(graph, reads, "mixed_float16") for reads in (True, False)]
    start = runs[0].state()
    for accumulate in (1, 2):
        read, unread = (run.steps(data(), 0, 4, accumulate, 2.0**40) for run in runs)
        assert read.skipped
        assert unread.skipped
        assert len(unread.losses) == accumulate
        np.testing.assert_array_equal(unread.losses, read.losses)
        np.testing.assert_equal(unread.metric_terms, read.metric_terms)
        for run in runs:
            found = run.state()
            for name, array in start.items():
                np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_constants_go_to_the_device_once() -> None:
    from unitrain.backends.torch.namespace import NAMESPACE

    like = torch.zeros(2, dtype=torch.float64)
    weights = np.array([1.0, 2.0])
    first = NAMESPACE.asarray(weights, like)
    assert NAMESPACE.asarray(weights.copy(), like) is first
    weights[0] = 5.0
    assert NAMESPACE.asarray(weights, like).tolist() == [5.0, 2.0]
    assert first.tolist() == [1.0, 2.0]
    assert NAMESPACE.asarray(weights, like.float()).dtype == torch.float32
    assert NAMESPACE.asarray(3, like).item() == 3.0
