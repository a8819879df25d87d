"""What the trainer decides, on a program that only counts: stopping, keeping, planning, limits."""

from __future__ import annotations

import numpy as np
import pytest

from unitrain.backends.contract import Batchable, Statistics
from unitrain.spec.optimizers import Sgd
from unitrain.spec.schedules import PlateauSchedule
from unitrain.spec.training import EarlyStopping, TrainingSpec
from unitrain.train.events import Observer
from unitrain.train.plan import Batches
from unitrain.train.schedules import make_schedule
from unitrain.train.trainer import Trainer
from unitrain.train.update import Update


class CountingProgram:
    """Remembers the plans it is given; loses 1 / (batch number), or NaN at one batch."""

    def __init__(self, nan_at: int | None = None) -> None:
        self.plans = []
        self.nan_at = nan_at
        self.graph = type("Graph", (), {"nodes": ()})()

    def place(self, data):
        return data

    def run_steps(self, placed, plan):
        self.plans.append(plan)
        losses = []
        for index in range(len(plan)):
            number = plan.first_step + index
            losses.append(np.nan if number == self.nan_at else 1.0 / (number + 1))
            if number == self.nan_at:
                break
        return Statistics(np.array(losses), {})

    def weights(self):
        return {"w": np.array([float(sum(len(plan) for plan in self.plans))])}

    def slots(self):
        return {}

    def activations(self, inputs, *, training, step):
        return {}


class Keeper:
    def __init__(self) -> None:
        self.last, self.best = [], []

    def keep(self, checkpoint):
        state = checkpoint.state
        self.last.append((state.epoch, state.batch, state.updates))
        if state.best_step == state.batches:
            self.best.append(state.epoch)

    def close(self):
        pass


class Recorder(Observer):
    def __init__(self) -> None:
        self.epochs, self.blocks = [], 0

    def on_epoch(self, event):
        self.epochs.append(event)

    def on_block(self, event):
        self.blocks += 1


def make(spec, *, samples=20, batch_size=4, losses=None, program=None, schedule=None, **options):
    program = program or CountingProgram()
    batches = Batches(samples, batch_size, spec.accumulate)
    values = iter(losses or [])
    data = Batchable({"x": np.zeros((samples, 1), np.float32)}, {"y": np.zeros(samples, np.int32)})
    keeper, recorder = Keeper(), Recorder()
    trainer = Trainer(
        program,
        Update(Sgd(lr=0.1), {"w": True}),
        make_schedule(schedule, 0.1, batches.updates_per_epoch, batches.updates_per_epoch * spec.epochs),
        data,
        batches,
        spec,
        validate=(lambda: {"loss": next(values)}) if losses else None,
        keeper=keeper,
        observers=[recorder],
        **options,
    )
    return trainer, program, keeper, recorder


def test_every_batch_is_planned_once_and_numbered_on():
    trainer, program, keeper, recorder = make(TrainingSpec(epochs=3))
    end = trainer.run()
    assert end.reason == "finished"
    assert end.epoch == 3
    assert end.updates == 15
    starts = [plan.first_step for plan in program.plans]
    assert starts == list(np.cumsum([0, *(len(plan) for plan in program.plans[:-1])]))
    seen = np.concatenate([plan.indices.reshape(-1) for plan in program.plans]).reshape(3, 20)
    for epoch in seen:
        assert sorted(epoch) == list(range(20))
    assert keeper.last == [(1, 0, 5), (2, 0, 10), (3, 0, 15)]
    # The mean of 1/1 ... 1/5, weighted by equal batches.
    assert recorder.epochs[0].training["loss"] == pytest.approx(np.mean(1 / np.arange(1, 6)))


def test_short_last_batch_counts_by_its_samples():
    trainer, _, _, recorder = make(TrainingSpec(epochs=1), samples=10, batch_size=4)
    trainer.run()
    assert recorder.epochs[0].training["loss"] == pytest.approx((4 * 1 + 4 / 2 + 2 / 3) / 10)


def test_accumulation_plans_factors_and_updates():
    trainer, program, _, _ = make(TrainingSpec(epochs=1, accumulate=2), samples=20, batch_size=4)
    end = trainer.run()
    scale = np.concatenate([plan.scale for plan in program.plans])
    apply = np.concatenate([plan.apply for plan in program.plans])
    assert scale.tolist() == [0.5, 0.5, 0.5, 0.5, 1.0]
    assert apply.tolist() == [False, True, False, True, True]
    assert end.updates == 3


def test_patience_allows_that_many_bad_evaluations():
    spec = TrainingSpec(epochs=20, early_stopping=EarlyStopping(patience=2))
    trainer, _, keeper, _ = make(spec, losses=[3.0, 2.0, 2.5, 2.4, 2.3, 1.0])
    end = trainer.run()
    assert end.reason == "early stopping"
    # 2.0 at epoch 2 is the best; epochs 3 and 4 are allowed, epoch 5 is one too many.
    assert end.epoch == 5
    assert end.best_epoch == 2
    assert keeper.best == [1, 2]


def test_a_small_improvement_is_kept_but_does_not_reset_patience():
    spec = TrainingSpec(epochs=9, early_stopping=EarlyStopping(patience=1, minimum_change=0.5))
    trainer, _, keeper, _ = make(spec, losses=[3.0, 2.9, 2.8, 2.7])
    end = trainer.run()
    assert end.epoch == 3
    assert keeper.best == [1, 2, 3]


def test_nan_validation_is_never_best():
    trainer, _, keeper, _ = make(TrainingSpec(epochs=3), losses=[np.nan, 2.0, np.nan])
    assert trainer.run().best_epoch == 2
    assert keeper.best == [2]


def test_step_limit_within_an_epoch():
    trainer, _, keeper, recorder = make(TrainingSpec(epochs=9, max_steps=7), losses=[3.0, 1.0])
    end = trainer.run()
    assert (end.reason, end.updates, end.epoch) == ("step limit", 7, 1)
    assert keeper.last[-1] == (1, 2, 7)
    assert [event.epoch for event in recorder.epochs] == [1, 2]
    # The measurement at the limit is not in the checkpoint: a run that goes on from it has not seen it.
    assert keeper.best == [1]
    assert end.best_epoch == 2
    assert trainer.state.best_step == 7


def test_step_limit_with_accumulation_counts_updates():
    trainer, program, _, _ = make(TrainingSpec(epochs=9, accumulate=2, max_steps=2))
    end = trainer.run()
    assert end.updates == 2
    assert sum(len(plan) for plan in program.plans) == 4


def test_time_limit():
    trainer, _, _, _ = make(TrainingSpec(epochs=10**6, max_minutes=1e-9))
    end = trainer.run()
    assert end.reason == "time limit"
    assert end.updates >= 1


def test_interrupt_keeps_the_place():
    trainer, _, keeper, _ = make(TrainingSpec(epochs=9), interrupted=lambda: "interrupted")
    end = trainer.run()
    assert end.reason == "interrupted"
    assert keeper.last == [(0, 1, 1)]


def test_not_finite_names_the_step():
    trainer, _, keeper, _ = make(TrainingSpec(epochs=9), program=CountingProgram(nan_at=7))
    end = trainer.run()
    assert end.reason == "not finite"
    assert "step 8" in end.message
    assert end.updates == 7
    assert keeper.last == [(1, 0, 5)]


def test_a_resumed_run_plans_the_same_batches():
    whole, program, _, _ = make(TrainingSpec(epochs=2))
    whole.run()
    rows = np.concatenate([plan.indices.reshape(-1) for plan in program.plans])

    first, before, _, _ = make(TrainingSpec(epochs=2, max_steps=3))
    first.run()
    second, after, _, _ = make(TrainingSpec(epochs=2))
    second.run(type(first.state).from_plain(first.state.to_plain()))
    plans = [*before.plans, *after.plans]
    assert np.array_equal(np.concatenate([plan.indices.reshape(-1) for plan in plans]), rows)
    assert after.plans[0].first_step == 3
    assert np.array_equal(
        np.concatenate([plan.coefficients for plan in plans]),
        np.concatenate([plan.coefficients for plan in program.plans]),
    )


def test_plateau_lowers_the_rate_after_patience():
    schedule = PlateauSchedule(patience=1, factor=0.5)
    trainer, _, _, recorder = make(TrainingSpec(epochs=6), losses=[1.0, 1.0, 1.0, 1.0, 1.0, 1.0], schedule=schedule)
    trainer.run()
    # Bad evaluations 2 and 3 exceed the patience of 1: lowered after epoch 3, and after epoch 5 again.
    assert [event.learning_rate for event in recorder.epochs] == pytest.approx([0.1, 0.1, 0.1, 0.05, 0.05, 0.025])
