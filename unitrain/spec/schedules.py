"""Learning-rate schedules: functions of the number of the update, with a linear warm-up before any of them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from unitrain.spec.base import Spec
from unitrain.spec.choice import Choice
from unitrain.spec.named import BY_NAME

Unit = Literal["epoch", "step"]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class _Schedule(Spec):
    """What every schedule has.

    Parameters
    ----------
    unit
        In what the schedule's lengths are given: epochs, or updates of the weights.
    warmup
        Length of a linear rise to the optimizer's lr before the schedule begins; the schedule's own clock starts
        after it.
    warmup_start
        Share of lr from which the rise starts; update i of w has lr * (start + (1 - start) * (i + 1) / w).
    """

    unit: Unit = "epoch"
    warmup: NonNegativeFloat = 0.0
    warmup_start: Share = 0.0


class ConstantSchedule(_Schedule):
    """lr."""

    type: Literal["constant"] = "constant"


class StepSchedule(_Schedule):
    """lr * factor^floor(t / every)."""

    type: Literal["step"] = "step"
    every: PositiveFloat
    factor: PositiveFloat = 0.1


class MultiStepSchedule(_Schedule):
    """lr * factor^(number of milestones reached)."""

    type: Literal["multi_step"] = "multi_step"
    milestones: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)]
    factor: PositiveFloat = 0.1


class ExponentialSchedule(_Schedule):
    """lr * factor^floor(t), t in units."""

    type: Literal["exponential"] = "exponential"
    factor: PositiveFloat


class PolynomialSchedule(_Schedule):
    """From lr to ``minimum`` * lr over ``length``, as (1 - t / length)^power, then constant.

    ``length`` is by default the rest of the run.
    """

    type: Literal["polynomial"] = "polynomial"
    power: PositiveFloat = 1.0
    minimum: Share = 0.0
    length: PositiveFloat | None = None


class CosineSchedule(_Schedule):
    """From lr to ``minimum`` * lr along half a cosine, and again (Loshchilov & Hutter 2017, SGDR).

    Parameters
    ----------
    period
        Length of the first half wave; by default the rest of the run.
    multiply
        Each period is so many times longer than the one before.
    minimum
        Share of lr at the end of a period.
    """

    type: Literal["cosine"] = "cosine"
    period: PositiveFloat | None = None
    multiply: PositiveInt = 1
    minimum: Share = 0.0


class OneCycleSchedule(Spec):
    """Rise from lr / start_divisor to lr, then fall to that start / end_divisor, both along half a cosine.

    Smith & Topin 2018. Its length is the whole run; it has a warm-up of its own.
    """

    type: Literal["one_cycle"] = "one_cycle"
    rise: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.3
    start_divisor: PositiveFloat = 25.0
    end_divisor: PositiveFloat = 1e4


class PlateauSchedule(_Schedule):
    """Multiply lr by ``factor`` when a validation value stops improving.

    Parameters
    ----------
    monitor
        ``loss`` or the label of a metric.
    patience
        Evaluations in a row without improvement that are allowed; the next one lowers lr.
    minimum_change
        Improvements smaller than this do not count.
    cooldown
        Evaluations after a change that are not counted.
    minimum
        Share of lr below which it does not fall.
    """

    type: Literal["plateau"] = "plateau"
    monitor: str = "loss"
    factor: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    patience: NonNegativeInt = 5
    minimum_change: NonNegativeFloat = 0.0
    cooldown: NonNegativeInt = 0
    minimum: Share = 0.0


Schedule = Annotated[
    Annotated[
        ConstantSchedule
        | StepSchedule
        | MultiStepSchedule
        | ExponentialSchedule
        | PolynomialSchedule
        | CosineSchedule
        | OneCycleSchedule
        | PlateauSchedule,
        Choice(),
    ],
    BY_NAME,
]
