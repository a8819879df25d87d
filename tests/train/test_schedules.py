"""Schedules against torch.optim.lr_scheduler step for step, closed forms, and independence of blocks."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from unitrain.spec.schedules import (
    ConstantSchedule,
    CosineSchedule,
    ExponentialSchedule,
    MultiStepSchedule,
    OneCycleSchedule,
    PlateauSchedule,
    PolynomialSchedule,
    Schedule,
    StepSchedule,
)
from unitrain.train.schedules import Rates, make_schedule

LR = 0.3


def rates(spec: Schedule | None, total: int, steps_per_epoch: int = 1) -> Rates:
    return make_schedule(spec, LR, steps_per_epoch, total).learning_rates(0, total)


def torch_rates(make: Callable[[torch.optim.Optimizer], Any], total: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR)
    scheduler = make(optimizer)
    found = []
    for _ in range(total):
        found.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize(
    ("spec", "make", "total"),
    [
        (StepSchedule(unit="step", every=7), lambda o: lr_scheduler.StepLR(o, 7), 40),
        (StepSchedule(unit="step", every=1, factor=0.5), lambda o: lr_scheduler.StepLR(o, 1, 0.5), 20),
        (
            MultiStepSchedule(unit="step", milestones=(4, 9, 25), factor=0.3),
            lambda o: lr_scheduler.MultiStepLR(o, [4, 9, 25], 0.3),
            40,
        ),
        (
            MultiStepSchedule(unit="step", milestones=(25, 4, 4)),  # in any order, and one twice
            lambda o: lr_scheduler.MultiStepLR(o, [4, 4, 25]),
            40,
        ),
        (ExponentialSchedule(unit="step", factor=0.9), lambda o: lr_scheduler.ExponentialLR(o, 0.9), 40),
        (PolynomialSchedule(unit="step", length=30), lambda o: lr_scheduler.PolynomialLR(o, 30), 40),
        (PolynomialSchedule(power=2.5), lambda o: lr_scheduler.PolynomialLR(o, 40, 2.5), 40),
        (CosineSchedule(), lambda o: lr_scheduler.CosineAnnealingLR(o, 40), 40),
        (CosineSchedule(minimum=0.1), lambda o: lr_scheduler.CosineAnnealingLR(o, 40, eta_min=0.1 * LR), 40),
        (
            CosineSchedule(unit="step", period=6, minimum=0.2),
            lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 6, 1, eta_min=0.2 * LR),
            40,
        ),
        (
            CosineSchedule(unit="step", period=5, multiply=2),
            lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 5, 2),
            400,
        ),
        (
            CosineSchedule(unit="step", period=3, multiply=3, minimum=0.01),
            lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3, 3, eta_min=0.01 * LR),
            400,
        ),
        (OneCycleSchedule(), lambda o: lr_scheduler.OneCycleLR(o, LR, total_steps=50), 49),
        (
            OneCycleSchedule(rise=0.17, start_divisor=7, end_divisor=20),
            lambda o: lr_scheduler.OneCycleLR(o, LR, total_steps=33, pct_start=0.17, div_factor=7, final_div_factor=20),
            32,
        ),
        (OneCycleSchedule(rise=0.01), lambda o: lr_scheduler.OneCycleLR(o, LR, total_steps=50, pct_start=0.01), 49),
    ],
    ids=lambda value: value.to_yaml().replace("\n", " ").strip() if hasattr(value, "to_yaml") else "",
)
def test_as_torch(spec: Schedule, make: Callable[[torch.optim.Optimizer], Any], total: int) -> None:
    whole = total + 1 if isinstance(spec, OneCycleSchedule) else total  # torch refuses a step after the last rate
    np.testing.assert_allclose(rates(spec, whole)[:total], torch_rates(make, total), rtol=1e-9, atol=1e-16)


def test_one_cycle_ends_at_its_end() -> None:
    found = rates(OneCycleSchedule(rise=0.3, start_divisor=10, end_divisor=100), 50)
    assert found[0] == pytest.approx(LR / 10)
    assert found[14] == pytest.approx(LR)
    assert found[49] == pytest.approx(LR / 1000)
    assert np.argmax(found) == 14


def test_restarts_begin_at_the_top_however_late() -> None:
    """Period n of length p * m^n starts at p * (m^n - 1) / (m - 1): exactly lr there, and the minimum before."""
    for multiply in (2, 3, 5):
        schedule = make_schedule(CosineSchedule(unit="step", period=7, multiply=multiply), LR, 1, 10**9)
        for number in range(1, 12):
            start = 7 * (multiply**number - 1) // (multiply - 1)
            before, first = schedule.learning_rates(start - 1, 2)
            assert first == LR
            assert before == pytest.approx(
                LR * 0.5 * (1 - math.cos(math.pi / (7 * multiply ** (number - 1)))), rel=1e-6
            )


def test_none_and_constant_are_lr() -> None:
    assert rates(None, 5).tolist() == rates(ConstantSchedule(), 5).tolist() == [LR] * 5


@pytest.mark.parametrize("begin", [0.0, 0.25])
def test_warmup_rises_in_a_line_and_then_starts_the_clock(begin: float) -> None:
    spec = StepSchedule(unit="step", every=5, factor=0.5, warmup=4, warmup_start=begin)
    rising = [LR * (begin + (1 - begin) * (i + 1) / 4) for i in range(4)]
    expected = rising + [LR * 0.5 ** (i // 5) for i in range(16)]
    np.testing.assert_allclose(rates(spec, 20), expected, rtol=1e-14)


def test_rest_of_the_run_begins_after_the_warmup() -> None:
    found = rates(PolynomialSchedule(warmup=2, minimum=0.1), 12 * 5, steps_per_epoch=5)
    assert found[9] == found[10] == LR
    np.testing.assert_allclose(found[10:], LR * (0.1 + 0.9 * (1 - np.arange(50) / 50)), rtol=1e-13)


@pytest.mark.parametrize(
    "spec",
    [
        StepSchedule(every=2.0, factor=0.5),
        MultiStepSchedule(milestones=(1.5, 3.0)),
        PolynomialSchedule(length=3.0, power=2.0),
        CosineSchedule(period=1.5, multiply=2, minimum=0.1, warmup=0.5),
        ConstantSchedule(warmup=1.5, warmup_start=0.1),
    ],
    ids=lambda spec: spec.type,
)
def test_epochs_are_their_steps(spec: Schedule) -> None:
    plain = spec.to_plain()
    lengths = {"every", "length", "period", "warmup"}
    scaled = {key: 10 * value if key in lengths else value for key, value in plain.items()}
    if "milestones" in plain:
        scaled["milestones"] = [10 * value for value in plain["milestones"]]
    in_steps = type(spec).model_validate({**scaled, "unit": "step"})
    np.testing.assert_array_equal(rates(spec, 60, steps_per_epoch=10), rates(in_steps, 60, steps_per_epoch=10))


def test_exponential_falls_once_an_epoch() -> None:
    expected = [LR * 0.5 ** (i // 3) for i in range(12)]
    np.testing.assert_allclose(rates(ExponentialSchedule(factor=0.5), 12, steps_per_epoch=3), expected, rtol=1e-15)


@pytest.mark.parametrize("hundredths", range(1, 100))
def test_a_share_of_an_epoch_falls_on_its_step(hundredths: int) -> None:
    """0.07 epochs of 100 steps are 7 steps, though 0.07 * 100 is a hair more than 7."""
    step = rates(StepSchedule(every=hundredths / 100, factor=0.5), 300, steps_per_epoch=100)
    np.testing.assert_array_equal(step, LR * 0.5 ** np.floor(np.arange(300) / hundredths))
    milestone = rates(MultiStepSchedule(milestones=(hundredths / 100,), factor=0.5), 100, steps_per_epoch=100)
    assert np.argmax(milestone < LR) == hundredths


@pytest.mark.parametrize("twentieths", range(1, 41))
def test_shares_of_steps_add_up(twentieths: int) -> None:
    """A period of 1.1 steps ends 30 times in 33 steps, though 33 / 1.1 is a hair less than 30."""
    for steps_per_epoch in (1, 3, 7, 9, 13):
        every = Fraction(twentieths, 20) * steps_per_epoch
        places = [Fraction(i) / every for i in range(300)]
        step = rates(StepSchedule(every=twentieths / 20, factor=0.99), 300, steps_per_epoch)
        np.testing.assert_allclose(step, [LR * 0.99 ** math.floor(place) for place in places], rtol=1e-9)
        cosine = rates(CosineSchedule(period=twentieths / 20), 300, steps_per_epoch)
        expected = [LR * 0.5 * (1.0 + math.cos(math.pi * float(place % 1))) for place in places]
        np.testing.assert_allclose(cosine, expected, rtol=1e-9, atol=1e-12)


length = st.floats(0.3, 50.0)
minimum = st.floats(0.0, 1.0)
clock = {"unit": st.sampled_from(["epoch", "step"]), "warmup": st.floats(0.0, 9.0), "warmup_start": minimum}
schedules = st.one_of(
    st.builds(ConstantSchedule, **clock),
    st.builds(StepSchedule, every=length, factor=st.floats(0.1, 1.5), **clock),
    st.builds(MultiStepSchedule, milestones=st.tuples(length, length), **clock),
    st.builds(ExponentialSchedule, factor=st.floats(0.5, 1.0), **clock),
    st.builds(PolynomialSchedule, power=st.floats(0.5, 3.0), minimum=minimum, length=st.none() | length, **clock),
    st.builds(CosineSchedule, period=st.none() | length, multiply=st.integers(1, 4), minimum=minimum, **clock),
    st.builds(OneCycleSchedule, rise=st.floats(0.01, 0.99)),
    st.builds(PlateauSchedule, **clock),
)


@settings(max_examples=150, deadline=None)
@given(spec=schedules, cuts=st.sets(st.integers(1, 79)), steps_per_epoch=st.integers(1, 20))
def test_rates_do_not_depend_on_the_blocks(spec: Schedule, cuts: set[int], steps_per_epoch: int) -> None:
    schedule = make_schedule(spec, LR, steps_per_epoch, 80)
    whole = schedule.learning_rates(0, 80)
    edges = [0, *sorted(cuts), 80]
    parts = [schedule.learning_rates(a, b - a) for a, b in pairwise(edges)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert whole.dtype == np.float64
    assert np.isfinite(whole).all()
    assert (whole >= 0.0).all()
    if not (isinstance(spec, StepSchedule) and spec.factor > 1.0):
        assert (whole <= LR * (1 + 1e-12)).all()


values = st.lists(st.integers(0, 12).map(lambda n: n / 4), min_size=1, max_size=60)


@settings(max_examples=200, deadline=None)
@given(
    values=values,
    patience=st.integers(0, 4),
    cooldown=st.integers(0, 3),
    change=st.sampled_from([0.0, 0.25, 0.6]),
    minimum=st.sampled_from([0.0, 0.01, 0.3]),
    higher=st.booleans(),
)
def test_plateau_is_torch_and_survives_json(
    values: list[float], patience: int, cooldown: int, change: float, minimum: float, higher: bool
) -> None:
    spec = PlateauSchedule(factor=0.5, patience=patience, cooldown=cooldown, minimum_change=change, minimum=minimum)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=LR)
    theirs = lr_scheduler.ReduceLROnPlateau(
        optimizer,
        mode="max" if higher else "min",
        factor=0.5,
        patience=patience,
        threshold=change,
        threshold_mode="abs",
        cooldown=cooldown,
        min_lr=minimum * LR,
        eps=0.0,
    )
    ours = make_schedule(spec, LR, 10, 10_000, higher_is_better=higher)
    for value in values:
        ours.observe(value)
        theirs.step(value)
        assert ours.learning_rates(50, 1)[0] == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        # What a checkpoint holds is all there is.
        state = json.loads(json.dumps(ours.state(), allow_nan=False))
        ours = make_schedule(spec, LR, 10, 10_000, higher_is_better=higher)
        ours.load_state(state)
        assert ours.state() == state


def test_plateau_allows_so_many_bad_evaluations() -> None:
    schedule = make_schedule(PlateauSchedule(patience=2, factor=0.1, monitor="accuracy"), LR, 10, 1000)
    assert schedule.monitor == "accuracy"
    found = []
    for value in [1.0, 1.0, 2.0, 1.0]:
        schedule.observe(value)
        found.append(schedule.learning_rates(0, 1)[0])
    np.testing.assert_allclose(found, [LR, LR, LR, 0.1 * LR], rtol=1e-15)


def test_nan_is_never_the_best_of_a_plateau() -> None:
    schedule = make_schedule(PlateauSchedule(patience=1, factor=0.5), LR, 10, 1000)
    for value in [math.nan, 3.0, 2.0, 1.0]:
        schedule.observe(value)
    assert schedule.learning_rates(0, 1)[0] == LR
    json.dumps(schedule.state(), allow_nan=False)
    schedule.observe(math.nan)
    schedule.observe(math.nan)
    assert schedule.learning_rates(0, 1)[0] == 0.5 * LR


def test_only_a_plateau_observes() -> None:
    schedule = make_schedule(CosineSchedule(), LR, 10, 100)
    before = schedule.learning_rates(0, 100)
    for value in (1.0, 2.0, 3.0, 4.0):
        schedule.observe(value)
    np.testing.assert_array_equal(schedule.learning_rates(0, 100), before)
    assert schedule.state() == {}
    assert schedule.monitor is None
