"""Learning rates as a function of the update, in NumPy float64; the plateau also remembers evaluations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from unitrain.spec import schedules as specs

Rates = npt.NDArray[np.float64]


@dataclass
class Schedule:
    """A schedule for one run.

    Parameters
    ----------
    spec
        What the recipe says.
    base
        The optimizer's lr.
    steps_per_epoch, total_steps
        Updates in an epoch, and in the whole run.
    higher_is_better
        Whether a plateau's monitored value improves upwards.
    """

    spec: specs.Schedule
    base: float
    steps_per_epoch: int
    total_steps: int
    higher_is_better: bool = False

    def __post_init__(self) -> None:
        self._factor = 1.0
        self._best: float | None = None
        self._bad = 0
        self._cooling = 0

    @property
    def monitor(self) -> str | None:
        """The validation value that `observe` wants, or None."""
        return self.spec.monitor if isinstance(self.spec, specs.PlateauSchedule) else None

    def learning_rates(self, first_step: int, count: int) -> Rates:
        """Return the rates of updates ``first_step`` (from 0) and the ``count - 1`` after it."""
        step = np.arange(first_step, first_step + count, dtype=np.float64)
        if isinstance(self.spec, specs.OneCycleSchedule):
            return self.base * _one_cycle(self.spec, step, self.total_steps)
        warmup = round(self._steps(self.spec.warmup))
        rising = self.spec.warmup_start + (1.0 - self.spec.warmup_start) * (step + 1.0) / max(warmup, 1)
        after = self._shares(np.maximum(step - warmup, 0.0), max(self.total_steps - warmup, 1))
        return self.base * np.where(step < warmup, rising, after)

    def observe(self, value: float) -> None:
        """Tell a plateau schedule the monitored value of an evaluation; others take no notice.

        A value counts as bad when it is no better than the best by more than ``minimum_change``. More than
        ``patience`` bad ones in a row lower the rate, and counting starts anew after ``cooldown`` evaluations.
        NaN is bad always.
        """
        if not isinstance(self.spec, specs.PlateauSchedule):
            return
        sign = 1.0 if self.higher_is_better else -1.0
        best = -math.inf if self._best is None else sign * self._best
        if sign * value > best + self.spec.minimum_change:
            self._best, self._bad = value, 0
        else:
            self._bad += 1
        if self._cooling > 0:
            self._cooling -= 1
            self._bad = 0
        if self._bad > self.spec.patience:
            self._factor = max(self._factor * self.spec.factor, self.spec.minimum)
            self._bad, self._cooling = 0, self.spec.cooldown

    def state(self) -> dict[str, Any]:
        """Return what a resumed run must remember, as plain values; empty for schedules without memory."""
        if not isinstance(self.spec, specs.PlateauSchedule):
            return {}
        return {"factor": self._factor, "best": self._best, "bad": self._bad, "cooling": self._cooling}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up what `state` returned."""
        self._factor = float(state["factor"])
        self._best = state["best"]
        self._bad, self._cooling = int(state["bad"]), int(state["cooling"])

    def _steps(self, length: float) -> float:
        """Return a length in updates."""
        epochs = not isinstance(self.spec, specs.OneCycleSchedule) and self.spec.unit == "epoch"
        # 0.07 * 100 is a hair more than 7: without rounding its last digits away a drop would come a step late.
        return float(f"{length * self.steps_per_epoch:.12g}") if epochs else length

    def _shares(self, step: Rates, rest: int) -> Rates:
        """Return the share of the base rate for each step of the schedule's own clock.

        ``rest`` is what remains of the run after the warm-up, in updates.
        """
        match self.spec:
            case specs.ConstantSchedule():
                return np.ones_like(step)
            case specs.StepSchedule(every=every, factor=factor):
                return factor ** _whole_periods(step, self._steps(every))
            case specs.MultiStepSchedule(milestones=milestones, factor=factor):
                places = np.sort([self._steps(milestone) for milestone in milestones])
                return factor ** np.searchsorted(places, step, side="right").astype(np.float64)
            case specs.ExponentialSchedule(factor=factor):
                return factor ** _whole_periods(step, self._steps(1.0))
            case specs.PolynomialSchedule(power=power, minimum=minimum, length=length):
                whole = rest if length is None else self._steps(length)
                return minimum + (1.0 - minimum) * (1.0 - np.minimum(step / whole, 1.0)) ** power
            case specs.CosineSchedule(period=period, multiply=multiply, minimum=minimum):
                whole = rest if period is None else self._steps(period)
                place = _place_in_period(step, whole, multiply)
                return minimum + (1.0 - minimum) * 0.5 * (1.0 + np.cos(math.pi * place))
            case specs.PlateauSchedule():
                return np.full_like(step, self._factor)
            case _:
                raise AssertionError("one_cycle has a clock of its own")


def _whole_periods(step: Rates, period: float) -> Rates:
    """Return how many periods have passed at each step."""
    # 33 / 1.1 is a hair less than 30: rounded down as it is, the change that is due would come a step late.
    return np.floor(step / period + 1e-9)


def _place_in_period(step: Rates, period: float, multiply: int) -> Rates:
    """Return how far each step is in its period, 0 to 1, when each is ``multiply`` times the one before."""
    if multiply == 1:
        return np.maximum(step / period - _whole_periods(step, period), 0.0)
    number = np.floor(np.log1p(step * (multiply - 1) / period) / math.log(multiply) + 1e-12)
    start = period * (multiply**number - 1.0) / (multiply - 1)
    return (step - start) / (period * multiply**number)


def _one_cycle(spec: specs.OneCycleSchedule, step: Rates, total: int) -> Rates:
    """Return shares of the highest rate: start 1 / start_divisor, top 1, end start / end_divisor."""
    start = 1.0 / spec.start_divisor
    end = start / spec.end_divisor
    top = spec.rise * total - 1.0
    up = np.clip(step / max(top, 1e-9), 0.0, 1.0)
    down = np.clip((step - top) / max(total - 1.0 - top, 1e-9), 0.0, 1.0)
    rising = 1.0 + (start - 1.0) * 0.5 * (1.0 + np.cos(math.pi * up))
    falling = end + (1.0 - end) * 0.5 * (1.0 + np.cos(math.pi * down))
    return np.where(step <= top, rising, falling)


def make_schedule(
    spec: specs.Schedule | None,
    base: float,
    steps_per_epoch: int,
    total_steps: int,
    *,
    higher_is_better: bool = False,
) -> Schedule:
    """Return the schedule of a recipe; none stands for a constant rate. Arguments as in `Schedule`."""
    return Schedule(spec or specs.ConstantSchedule(), base, steps_per_epoch, total_steps, higher_is_better)
