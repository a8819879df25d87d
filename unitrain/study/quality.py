"""What a variant costs in quality: accuracy, error or fidelity, with intervals and tests against the float model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from unitrain.study.splits import Samples
from unitrain.study.statistics import (
    Standing,
    Table,
    bootstrap,
    mcnemar,
    paired_difference,
    signal_to_noise,
    standing,
    wilson,
)
from unitrain.timing import Interval

Array = npt.NDArray[Any]
Measure = Literal["accuracy", "token accuracy", "rmse", "agreement", "relative error"]


@dataclass(frozen=True)
class Task:
    """What is judged.

    Parameters
    ----------
    output
        Name of the model's output.
    kind
        ``classes``: the largest of the last axis, or the sign where there is one number a sample; ``numbers``.
    labelled
        Whether there are targets; without them outputs are compared with the float model's.
    ignored
        A class number of elements that do not count.
    """

    output: str
    kind: Literal["classes", "numbers"]
    labelled: bool
    ignored: int | None = None


@dataclass(frozen=True)
class Quality:
    """How good a variant is on one split.

    Parameters
    ----------
    measure
        What ``value`` is. Agreement and relative error are with the float model: fidelity, not accuracy.
    value
        With its 95 % interval.
    gain
        How much better than the float model, in units of ``value``, with its interval; of errors, less is better. Of
        fidelity: how far from full agreement.
    margin
        The loss that is accepted, in the same units.
    verdict
        Whether it is inferior by more than that; None for the float model itself.
    p_value, corrected
        McNemar's exact test against the float model, and Holm's correction for all variants; None where it does not
        apply.
    agreement
        Share of the classes that are the float model's.
    signal_to_noise
        Of the output against the float model's, in dB.
    """

    measure: Measure
    value: Interval
    gain: Interval | None = None
    margin: float = 0.0
    verdict: Standing | None = None
    p_value: float | None = None
    corrected: float | None = None
    agreement: float | None = None
    signal_to_noise: float | None = None


def judge(
    task: Task,
    samples: Samples,
    found: Mapping[str, Array],
    reference: Mapping[str, Array],
    margin: float,
    generator: np.random.Generator,
) -> Quality:
    """Judge a variant's outputs beside those of the float model, on the same samples.

    Parameters
    ----------
    found, reference
        Output name to ``[n, ...]``: the variant's and the float model's.
    margin
        Relative to what the float model reaches.
    """
    mine, theirs = (np.asarray(outputs[task.output], np.float64) for outputs in (found, reference))
    if not task.labelled or samples.target is None:
        quality = _fidelity(task, mine, theirs, margin, generator)
    elif task.kind == "classes":
        quality = _classes(task, samples.target, mine, theirs, margin, generator)
    else:
        quality = _numbers(samples.target, mine, theirs, margin, generator)
    if task.kind == "classes":
        quality = replace(quality, agreement=float((classes_of(mine) == classes_of(theirs)).mean()))
    return replace(quality, signal_to_noise=signal_to_noise(theirs, mine))


def classes_of(values: Array) -> Array:
    """Return the class of each element: the largest of the last axis, or the sign where that has one number."""
    if values.ndim > 1 and values.shape[-1] > 1:
        return np.asarray(values.argmax(axis=-1))
    return np.asarray((values if values.ndim == 1 else values[..., 0]) > 0)


def _classes(
    task: Task, target: Array, mine: Array, theirs: Array, margin: float, generator: np.random.Generator
) -> Quality:
    right_mine, right_theirs = (
        classes_of(values) == target.reshape(classes_of(values).shape) for values in (mine, theirs)
    )
    if right_mine.ndim == 1 and task.ignored is None:
        table = Table.of(right_theirs, right_mine)
        share = wilson(table.both + table.second, table.samples)
        gain = paired_difference(table)
        accepted = margin * (table.both + table.first) / table.samples
        return Quality("accuracy", share, gain, accepted, standing(gain, accepted), p_value=mcnemar(table))
    counted = np.ones(right_mine.shape, bool) if task.ignored is None else target != task.ignored
    hits, hits_before, elements = (
        (values & counted).reshape(len(values), -1).sum(axis=1).astype(np.float64)
        for values in (right_mine, right_theirs, counted)
    )
    value = bootstrap(lambda drawn: hits[drawn].sum(1) / elements[drawn].sum(1), len(hits), generator)
    gain = bootstrap(
        lambda drawn: (hits[drawn] - hits_before[drawn]).sum(1) / elements[drawn].sum(1), len(hits), generator
    )
    accepted = margin * float(hits_before.sum() / elements.sum())
    return Quality("token accuracy", value, gain, accepted, standing(gain, accepted))


def _numbers(target: Array, mine: Array, theirs: Array, margin: float, generator: np.random.Generator) -> Quality:
    """Judge by the root of the mean squared error: samples are drawn with both models' errors on them."""
    squared, squared_before = (
        np.square(values.reshape(len(values), -1) - target.reshape(len(target), -1)).mean(axis=1)
        for values in (mine, theirs)
    )
    value = bootstrap(lambda drawn: np.sqrt(squared[drawn].mean(1)), len(squared), generator)
    gain = bootstrap(
        lambda drawn: np.sqrt(squared_before[drawn].mean(1)) - np.sqrt(squared[drawn].mean(1)),
        len(squared),
        generator,
    )
    accepted = margin * float(np.sqrt(squared_before.mean()))
    return Quality("rmse", value, gain, accepted, standing(gain, accepted))


def _fidelity(task: Task, mine: Array, theirs: Array, margin: float, generator: np.random.Generator) -> Quality:
    if task.kind == "classes":
        same = classes_of(mine) == classes_of(theirs)
        if same.ndim == 1:
            value = wilson(int(same.sum()), len(same))
        else:
            shares = same.reshape(len(same), -1).mean(axis=1)
            value = bootstrap(lambda drawn: shares[drawn].mean(1), len(shares), generator)
        gain = Interval(value.value - 1.0, value.low - 1.0, value.high - 1.0)
        return Quality("agreement", value, gain, margin, standing(gain, margin))
    noise = np.square(mine - theirs).reshape(len(mine), -1).sum(axis=1)
    signal = np.square(theirs).reshape(len(theirs), -1).sum(axis=1)

    def relative(drawn: Array) -> Array:
        whole = signal[drawn].sum(1)
        return np.asarray(np.sqrt(noise[drawn].sum(1) / np.where(whole > 0.0, whole, 1.0)))

    value = bootstrap(relative, len(mine), generator)
    gain = Interval(-value.value, -value.high, -value.low)
    return Quality("relative error", value, gain, margin, standing(gain, margin))
