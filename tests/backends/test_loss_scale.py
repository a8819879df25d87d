"""Loss scaling: programs and trainer held to a loop by hand in plain torch with torch's own GradScaler.

All compute in float64, where gradients overflow as well: a sample whose gradient is near the largest number is
finite by itself and infinite under the scale. So agreement is to rounding, whichever framework runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from unitrain.backends import load_backend
from unitrain.backends.contract import Batchable, Plan, Program, Settings, Statistics
from unitrain.backends.rule import TrainingRule
from unitrain.graph.graph import Graph
from unitrain.graph.resolve import resolve
from unitrain.spec.losses import MeanSquaredError
from unitrain.spec.model import ModelSpec
from unitrain.spec.optimizers import Adam
from unitrain.spec.training import TrainingSpec
from unitrain.train import loss_scale
from unitrain.train.losses import make_loss
from unitrain.train.plan import Batches
from unitrain.train.schedules import make_schedule
from unitrain.train.trainer import Trainer
from unitrain.train.update import Update
from unitrain.weights.initialize import initialize

BATCH, RATE = 4, 0.05
# A gradient of about 1e8 * FAR: finite, and infinite in 2**15 times it.
FAR = 1e298
RUNS = ["keras", "torch", "torch, nothing read"]


@pytest.fixture(scope="module")
def graph() -> Graph:
    layers = [
        {"type": "dense", "name": "first", "units": 5, "use_bias": False},
        {"type": "batch_norm", "name": "norm"},
        {"type": "tanh", "name": "bend"},
        {"type": "dense", "name": "second", "units": 2},
        {"type": "add", "name": "y", "inputs": ["second", "wide"]},
    ]
    return resolve(
        ModelSpec.model_validate(
            {
                "inputs": {"x": {"shape": [3]}, "far": {"shape": [1]}},
                "layers": [
                    {**layers[0], "inputs": ["x"]},
                    *layers[1:4],
                    # Far inputs meet weights of 0 here: the loss stays finite.
                    {"type": "dense", "name": "wide", "units": 2, "use_bias": False, "inputs": ["far"]},
                    layers[4],
                ],
            }
        )
    )


def samples(count: int, far: tuple[int, ...]) -> Batchable:
    """Return samples, of which those in the batches ``far`` overflow under the scale."""
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(count, 3)), generator.normal(size=(count, 2))
    extra = np.zeros((count, 1))
    for batch in far:
        extra[batch * BATCH] = FAR
        y[batch * BATCH] = 1e9
    return Batchable({"x": x, "far": extra}, {"y": y})


def start(graph: Graph) -> dict[str, Any]:
    weights = initialize(graph, 0)
    weights["wide.kernel"] = np.zeros_like(weights["wide.kernel"])
    return weights


def compiled(run: str, graph: Graph, update: Update) -> Program:
    backend, _, unread = run.partition(", ")
    rule = TrainingRule({"y": (1.0, make_loss(MeanSquaredError()))}, (), update)
    program: Any = load_backend(backend).compile(graph, start(graph), Settings(precision="float64"), rule)
    if unread:
        program._reads = False
    found: Program = program
    return found


@dataclass
class Hand:
    """The loop by hand: torch's modules, Adam, GradScaler."""

    weights: dict[str, Any]
    scale: float
    updates: int
    skipped: int

    @classmethod
    def train(cls, graph: Graph, data: Batchable, accumulate: int, interval: int) -> Hand:
        weights = start(graph)

        def linear(name: str) -> torch.nn.Linear:
            kernel = torch.tensor(weights[f"{name}.kernel"], dtype=torch.float64)
            module = torch.nn.Linear(*kernel.shape, bias=f"{name}.bias" in weights, dtype=torch.float64)
            with torch.no_grad():
                module.weight.copy_(kernel.T)
                if module.bias is not None:
                    module.bias.copy_(torch.tensor(weights[f"{name}.bias"]))
            return module

        first, second, wide = linear("first"), linear("second"), linear("wide")
        norm = torch.nn.BatchNorm1d(5, eps=1e-5, momentum=0.1, dtype=torch.float64)
        parameters = [p for module in (first, norm, second, wide) for p in module.parameters()]
        optimizer = torch.optim.Adam(parameters, lr=RATE, eps=1e-8)
        scaler = torch.amp.GradScaler("cpu", growth_interval=interval)
        batches, updates, skipped = len(data) // BATCH, 0, 0
        tensors = [torch.tensor(array) for array in (*data.inputs.values(), *data.targets.values())]
        for batch in range(batches):
            x, far, y = (tensor[batch * BATCH : (batch + 1) * BATCH] for tensor in tensors)
            group = batch - batch % accumulate
            shares = min(accumulate, batches - group)
            output = second(torch.tanh(norm(first(x)))) + wide(far)
            loss = ((output - y) ** 2).mean() / shares
            scaler.scale(loss).backward()
            if batch == group + shares - 1:
                before = scaler.get_scale()
                scaler.step(optimizer)
                scaler.update()
                if scaler.get_scale() < before:
                    skipped += 1
                else:
                    updates += 1
                optimizer.zero_grad()
        found = {
            f"{name}.kernel": module.weight.detach().numpy().T
            for name, module in (("first", first), ("second", second), ("wide", wide))
        }
        biases = {"second.bias": second.bias, "norm.scale": norm.weight, "norm.bias": norm.bias}
        found |= {name: tensor.detach().numpy() for name, tensor in biases.items()}
        return cls(found, scaler.get_scale(), updates, skipped)


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize(
    ("accumulate", "far"),
    [
        (1, ()),
        (1, (0,)),  # the very first update
        (1, (3, 4, 13)),  # two in a row, and one after a doubling
        (2, (4, 9)),  # the first of its update, and the second of one
        (3, (6, 7, 19)),  # two batches of one update; the last update, which is shorter
    ],
)
def test_a_run_is_that_of_a_grad_scaler(
    graph: Graph, run: str, accumulate: int, far: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    interval = 5
    monkeypatch.setattr(loss_scale, "INTERVAL", interval)
    data = samples(20 * BATCH, far)
    update = Update(Adam(lr=RATE), dict.fromkeys(graph.trainable, False))
    program = compiled(run, graph, update)
    spec = TrainingSpec(epochs=1, batch_size=BATCH, accumulate=accumulate, shuffle=False, precision="mixed_float16")
    batches = Batches(len(data), BATCH, accumulate, shuffle=False)
    schedule = make_schedule(None, RATE, batches.updates_per_epoch, batches.updates_per_epoch)
    trainer = Trainer(program, update, schedule, data, batches, spec)
    end = trainer.run()
    hand = Hand.train(graph, data, accumulate, interval)
    assert (end.reason, trainer.state.batches) == ("finished", 20)
    assert (end.updates, end.skipped, end.loss_scale) == (hand.updates, hand.skipped, hand.scale)
    assert hand.skipped == len({batch // accumulate for batch in far})
    weights = program.weights()
    for name, expected in hand.weights.items():
        np.testing.assert_allclose(weights[name], expected, rtol=1e-9, atol=1e-12, err_msg=name)


def plan(update: Update, steps: int, scale: float | None, accumulate: int = 1) -> Plan:
    numbers = np.arange(steps)
    return Plan(
        (numbers[:, None] * BATCH + np.arange(BATCH)).astype(np.int32),
        update.coefficients(np.full(steps, RATE), 0)[numbers // accumulate],
        np.full(steps, 1.0 / accumulate),
        numbers % accumulate == accumulate - 1,
        0,
        scale,
    )


def state(program: Program) -> dict[str, Any]:
    slots = {f"{slot} {name}": array for slot, arrays in program.slots().items() for name, array in arrays.items()}
    return {**program.weights(), **slots}


@pytest.mark.parametrize("run", RUNS)
def test_a_skipped_update_moves_nothing_and_ends_the_block(graph: Graph, run: str) -> None:
    update = Update(Adam(lr=RATE, ema=0.9, weight_decay=0.1, clip_norm=1.0), dict.fromkeys(graph.trainable, True))
    program = compiled(run, graph, update)
    placed = program.place(samples(5 * BATCH, (2,)))
    other = compiled(run, graph, update)
    expected: Statistics = other.run_steps(placed, plan(update, 2, None))
    found = program.run_steps(placed, plan(update, 5, 2.0**16))
    assert found.skipped
    assert not expected.skipped
    assert len(found.losses) == 3
    assert np.isfinite(found.losses).all()
    np.testing.assert_allclose(found.losses[:2], expected.losses, rtol=1e-12)
    for name, array in state(other).items():
        np.testing.assert_allclose(state(program)[name], array, rtol=1e-9, atol=1e-14, err_msg=name)
    # The same without the scale is finite.
    assert not program.run_steps(placed, plan(update, 5, 1.0)).skipped


@pytest.mark.parametrize("run", RUNS)
def test_a_loss_that_is_not_finite_is_no_skip(graph: Graph, run: str) -> None:
    update = Update(Adam(lr=RATE), dict.fromkeys(graph.trainable, False))
    data = samples(5 * BATCH, ())
    data.targets["y"][2 * BATCH] = np.nan
    program = compiled(run, graph, update)
    found = program.run_steps(program.place(data), plan(update, 5, 2.0**16))
    assert not found.skipped
    assert len(found.losses) == 3
    assert np.isnan(found.losses[-1])


@pytest.mark.parametrize("run", RUNS)
def test_gradients_accumulated_for_a_skipped_update_are_dropped(graph: Graph, run: str) -> None:
    update = Update(Adam(lr=RATE), dict.fromkeys(graph.trainable, False))
    data = samples(4 * BATCH, (0,))
    program, other = compiled(run, graph, update), compiled(run, graph, update)
    whole = plan(update, 4, 2.0**16, accumulate=2)
    assert program.run_steps(program.place(data), whole).skipped
    rest = Plan(whole.indices[2:], whole.coefficients[:2], whole.scale[2:], whole.apply[2:], 2, 2.0**15)
    for one in (program, other):
        assert not one.run_steps(one.place(data), rest).skipped
    for name in graph.trainable:
        np.testing.assert_allclose(program.weights()[name], other.weights()[name], rtol=1e-12, err_msg=name)
