"""Training: samples a second of the trainer's own blocks of steps, and the time to an accuracy on real data.

Every side compiles the same graph with the same starting weights and Adam, and is handed the same plans: blocks of
steps over data that lies on its device, as `train.trainer` hands them. So what is timed is what `unitrain fit` does
between two looks at the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import numpy as np

from unitrain.backends import load_backend
from unitrain.backends.contract import Backend, Batchable, Plan, Program, Statistics
from unitrain.backends.toolkit import Call
from unitrain.bench.models import TimedModel
from unitrain.bench.results import Work
from unitrain.bench.runner import Entry, Experiment, Right
from unitrain.bench.sides import Side
from unitrain.train.plan import Batches

# Largest relative difference of the losses of the first block from those of NumPy in float64.
TOLERANCE = 1e-3
BATCH = 128
# Steps of a timed block: as in a run it takes about 0.2 s, at a few tens of GFLOP/s, so that its start and its one
# reading of the losses weigh little.
MOST_STEPS, FEWEST_STEPS, QUICK_STEPS = 16, 2, 4
_BLOCK_FLOPS = 16e9
_RATE = 1e-3


def experiments(
    sides: Sequence[Side], device: str, models: Sequence[TimedModel], *, quick: bool = False
) -> list[Experiment]:
    """Return one experiment a model; sides that infer only take no part."""
    training = [side for side in sides if side.backend.trains]
    return [
        experiment(model, training, device, min(block_steps(model), QUICK_STEPS if quick else MOST_STEPS))
        for model in models
    ]


def block_steps(model: TimedModel, batch: int = BATCH) -> int:
    """Return how many steps of a model a timed block holds."""
    wanted = _BLOCK_FLOPS / max(model.gradient_work(batch).flops, 1.0)
    return int(min(max(wanted, FEWEST_STEPS), MOST_STEPS))


def experiment(model: TimedModel, sides: Sequence[Side], device: str, steps: int, batch: int = BATCH) -> Experiment:
    """Return the experiment of a model: blocks of so many steps, over as much data."""

    @cache
    def data() -> Batchable:
        return model.data(steps * batch)

    def build(side: Side) -> Call:
        program, placed = _placed(side.backend, model, side.device, "float32", data())
        return _blocks(program, placed, model, steps, batch)

    def expected() -> Right:
        program, placed = _placed(load_backend("numpy"), model, "cpu", "float64", data())
        call = _blocks(program, placed, model, steps, batch)
        return Right(call.read(call.run()), TOLERANCE)

    one = model.gradient_work(batch)
    # A block is one call; the optimizer reads and writes weights, gradients and two moments: seven numbers a weight.
    update = 7.0 * 4 * model.graph.parameter_count(trainable=True)
    work = Work(one.flops * steps, (one.bytes + update) * steps, one.operations * steps, batch * steps)
    return Experiment(
        "training",
        model.name,
        f"Adam, batch {batch}, blocks of {steps} steps, {model.about}",
        work,
        [Entry(side.name, side, partial(build, side)) for side in sides],
        expected,
        device,
    )


def _placed(backend: Backend, model: TimedModel, device: str, precision: str, data: Batchable) -> tuple[Program, Any]:
    program = backend.compile(model.graph, model.weights, model.settings(device, precision), model.rule())
    return program, program.place(data)


def _blocks(program: Program, placed: Any, model: TimedModel, steps: int, batch: int) -> Call:
    """Train on, a block a call, each in an order of its own; a block's losses are read."""
    update, batches = model.update(), Batches(steps * batch, batch, seed=model.seed)
    rates = np.full(steps, _RATE)
    done = 0

    def run() -> Statistics:
        nonlocal done
        rows = batches.rows(batches.order(done), 0, steps)
        first = done * steps
        plan = Plan(rows, update.coefficients(rates, first), np.ones(steps), np.ones(steps, dtype=np.bool_), first)
        done += 1
        return program.run_steps(placed, plan)

    return Call(run, lambda statistics: {"losses": statistics.losses})
