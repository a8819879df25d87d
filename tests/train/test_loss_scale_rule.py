"""When the loss scale changes, held to torch's GradScaler; what the trainer makes of skipped updates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unitrain.backends.contract import Batchable, Plan, Statistics
from unitrain.spec.optimizers import Sgd
from unitrain.spec.training import TrainingSpec
from unitrain.train import loss_scale
from unitrain.train.loss_scale import LossScale
from unitrain.train.plan import Batches
from unitrain.train.schedules import make_schedule
from unitrain.train.state import TrainingState
from unitrain.train.trainer import Trainer
from unitrain.train.update import Update


@settings(deadline=None)
@given(st.lists(st.booleans(), max_size=60), st.integers(1, 6))
def test_it_changes_as_torchs_does(overflows: list[bool], interval: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loss_scale, "INTERVAL", interval)
        parameter = torch.nn.Parameter(torch.zeros(1))
        scaler = torch.amp.GradScaler("cpu", growth_interval=interval)
        optimizer = torch.optim.SGD([parameter], lr=0.0)
        ours = LossScale()
        for overflow in overflows:
            scaler.scale(parameter.sum()).backward()
            parameter.grad = torch.full((1,), np.inf if overflow else 1.0)
            scaler.step(optimizer)
            scaler.update()
            assert ours.room >= 1
            ours.observe(0 if overflow else 1, overflow)
            assert ours.value == scaler.get_scale()
    assert ours.skipped == sum(overflows)


class Overflowing:
    """A program whose gradients overflow above a scale, or at steps; it remembers its plans."""

    def __init__(self, above: float = np.inf, at: tuple[int, ...] = ()) -> None:
        self.above, self.at = above, at
        self.plans: list[Plan] = []

    def place(self, data: Batchable) -> Batchable:
        return data

    def run_steps(self, placed: Any, plan: Plan) -> Statistics:
        self.plans.append(plan)
        assert plan.loss_scale is not None
        for index in np.flatnonzero(plan.apply):
            if plan.loss_scale > self.above or plan.first_step + index in self.at:
                return Statistics(np.ones(index + 1), skipped=True)
        return Statistics(np.ones(len(plan)))

    def weights(self) -> dict[str, Any]:
        return {"w": np.zeros(1)}

    def slots(self) -> dict[str, Any]:
        return {}


def trained(program: Overflowing, batches: int, accumulate: int = 1, state: TrainingState | None = None) -> Any:
    spec = TrainingSpec(epochs=1, batch_size=1, accumulate=accumulate, precision="mixed_float16")
    data = Batchable({"x": np.zeros((batches, 1), np.float32)}, {"y": np.zeros(batches, np.int32)})
    cut = Batches(batches, 1, accumulate)
    schedule = make_schedule(None, 0.1, cut.updates_per_epoch, cut.updates_per_epoch)
    trainer = Trainer(program, Update(Sgd(), {"w": True}), schedule, data, cut, spec)  # type: ignore[arg-type]
    return trainer, trainer.run(state)


@pytest.mark.parametrize("accumulate", [1, 4])
def test_every_batch_is_seen_once_and_updates_that_count_are_those_applied(accumulate: int) -> None:
    program = Overflowing(at=(3, 7, 19, 103))
    trainer, end = trained(program, 400, accumulate)
    assert (end.reason, end.skipped, end.loss_scale) == ("finished", 4, 2.0**12)
    assert end.updates == 400 // accumulate - 4
    assert (trainer.state.batches, trainer.state.samples) == (400, 0)  # the sums of an epoch end with it
    starts = [plan.first_step for plan in program.plans]
    assert starts == sorted(set(starts))
    # A block holds no more updates than there have been since the scale last changed.
    for before, after in zip(program.plans, program.plans[1:], strict=False):
        if after.loss_scale != before.loss_scale:
            assert after.apply.sum() <= loss_scale.PROBE


def test_the_scale_doubles_at_the_end_of_a_block_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_scale, "INTERVAL", 50)
    program = Overflowing(above=2.0**17)
    _, end = trained(program, 400)
    done: dict[float, list[int]] = {}
    for plan in program.plans:
        done.setdefault(plan.loss_scale or 0.0, []).append(len(plan))
    assert sum(done[2.0**16]) == 50
    assert set(done) == {2.0**16, 2.0**17, 2.0**18}
    assert end.loss_scale == 2.0**17


def test_a_scale_below_one_ends_the_run() -> None:
    program = Overflowing(above=0.0)
    _, end = trained(program, 400)
    assert end.reason == "not finite"
    assert "mixed_bfloat16" in end.message
    assert (end.updates, end.skipped, end.loss_scale) == (0, 17, 0.5)
    assert [plan.loss_scale for plan in program.plans] == [2.0**power for power in range(16, -1, -1)]


def test_scale_and_counters_are_part_of_the_state() -> None:
    trainer, end = trained(Overflowing(at=(3, 9)), 20)
    assert end.loss_scale == 2.0**14
    again = TrainingState.from_plain(trainer.state.to_plain())
    assert again == trainer.state
    assert again.loss_scale == LossScale(2.0**14, 10, 2)
    again.epoch, program = 0, Overflowing()
    trained(program, 20, state=again)
    assert program.plans[0].loss_scale == 2.0**14


def test_states_of_runs_before_there_was_a_scale_are_read() -> None:
    plain = TrainingState().to_plain()
    del plain["loss_scale"]
    assert TrainingState.from_plain(plain) == TrainingState()
