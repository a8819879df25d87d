"""Timing that can be believed: interleaved rounds in a drawn order, medians with intervals, an A/A twin.

All contenders are timed in one process, in rounds; each round has every contender once, in an order drawn anew, so
that what else the machine does falls on all alike. Contenders are compared within the rounds: the ratio of two is the
median of the rounds' ratios. One contender, the baseline, takes part twice; how far its twin seems to differ from it
is how far two things differ here that are the same, and no smaller difference is claimed.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Seconds = npt.NDArray[np.float64]

TWIN = "A/A twin"
# A sample whose calls are shorter than this begins with one that is not timed: it wakes the contender's threads and
# lets those of the one before go to sleep.
_SHORT = 0.02
# Rounds that are done even when the time for a case is over: of fewer no interval can be told.
FEWEST_ROUNDS = 5
RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A value, and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Contender:
    """What is timed.

    Parameters
    ----------
    run
        Starts it once.
    wait
        Returns when all that was started is done.
    renew
        Makes what runs anew, before each round: how fast it is depends on where its memory lies, and what is made once
        keeps its luck through all rounds. It is left ready, as after a first run.
    """

    name: str
    run: Callable[[], Any]
    wait: Callable[[], None] = lambda: None
    renew: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Samples:
    """What was measured.

    Parameters
    ----------
    seconds
        Contender to seconds a call, one number a round: float64 ``[rounds]``, all of the same length.
    calls
        Contender to how many calls each of these numbers is the mean of, or with ``each`` the median.
    each
        Contender to the seconds of every call, ``[rounds * calls]``, where that was asked for.
    """

    seconds: Mapping[str, Seconds]
    calls: Mapping[str, int]
    each: Mapping[str, Seconds] = field(default_factory=dict)

    @property
    def rounds(self) -> int:
        """How many rounds were done."""
        return len(next(iter(self.seconds.values())))


def draw_orders(names: Sequence[str], rounds: int, generator: np.random.Generator) -> list[list[str]]:
    """Draw the order of each round: every name once in each."""
    return [[names[index] for index in generator.permutation(len(names))] for _ in range(rounds)]


def measure(
    contenders: Sequence[Contender],
    *,
    rounds: int,
    generator: np.random.Generator,
    sample_seconds: float = 0.01,
    budget: float = float("inf"),
    each: bool = False,
    after_round: Callable[[int], None] = lambda done: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Samples:
    """Time contenders against one another; each must have run before, so that nothing is traced or compiled here.

    Parameters
    ----------
    rounds
        How many rounds, unless ``budget`` ends them; at least `FEWEST_ROUNDS` of them are done.
    generator
        Draws the orders.
    sample_seconds
        A sample holds as many calls as this takes, one at least.
    budget
        Seconds after which no further round begins.
    each
        Keep the time of every call; a sample is then their median, which calls that were broken into do not move. Not
        for contenders that return before they are done.
    after_round
        Told how many rounds are done.
    clock
        Tells the time in seconds.
    """
    started = clock()
    by_name = {contender.name: contender for contender in contenders}
    lone = {name: _sample(one, 1, clock) for name, one in by_name.items()}
    lone = {name: min(lone[name], _sample(one, 1, clock)) for name, one in by_name.items()}
    calls = _fitting(lone, sample_seconds)
    if each:
        # A lone call comes with cold caches, and may take many times as long as the next: with too few calls a sample
        # would tell mostly how cold it began.
        lone = {name: min(lone[name], _sample(one, calls[name], clock)) for name, one in by_name.items()}
        calls = _fitting(lone, sample_seconds)
    found: dict[str, list[float]] = {name: [] for name in by_name}
    every: dict[str, list[float]] = {name: [] for name in by_name if each}
    collecting = gc.isenabled()
    gc.disable()  # a collection in the middle of a sample would fall on whoever happens to run
    try:
        for number, order in enumerate(draw_orders(list(by_name), rounds, generator)):
            if number >= FEWEST_ROUNDS and clock() - started > budget:
                break
            for name in order:
                by_name[name].renew()
            gc.collect(0)
            for name in order:
                if lone[name] < _SHORT:
                    by_name[name].run()
                    by_name[name].wait()
                found[name].append(_sample(by_name[name], calls[name], clock, every.get(name)))
            after_round(number + 1)
    finally:
        if collecting:
            gc.enable()
    seconds, all_calls = ({name: np.array(values) for name, values in kept.items()} for kept in (found, every))
    return Samples(seconds, calls, all_calls)


def _fitting(lone: Mapping[str, float], sample_seconds: float) -> dict[str, int]:
    return {name: max(1, int(sample_seconds / max(seconds, 1e-7))) for name, seconds in lone.items()}


def _sample(contender: Contender, calls: int, clock: Callable[[], float], every: list[float] | None = None) -> float:
    run = contender.run
    start = clock()
    if every is not None:
        before = start
        for _ in range(calls):
            run()
            after = clock()
            every.append(after - before)
            before = after
        return float(np.median(every[-calls:]))
    for _ in range(calls):
        run()
    contender.wait()
    return (clock() - start) / calls


def median_interval(values: Seconds, generator: np.random.Generator) -> Interval:
    """Return the median with the percentile bootstrap's 95 % interval.

    Notes
    -----
    Efron 1979, Bootstrap methods: another look at the jackknife; the percentile interval. `RESAMPLES` samples of the
    same size are drawn with replacement, and the middle 95 % of their medians are taken.
    """
    drawn = generator.integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.percentile(np.median(values[drawn], axis=1), [2.5, 97.5])
    return Interval(float(np.median(values)), float(low), float(high))


def ratio_interval(values: Seconds, baseline: Seconds, generator: np.random.Generator) -> Interval:
    """Return the median of the rounds' ratios, contender over baseline, with its interval."""
    return median_interval(values / baseline, generator)


def noise_band(twin: Interval) -> float:
    """Return the factor up to which two equal things may seem to differ, from the ratio of the A/A twin: at least 1."""
    return max(twin.high, 1.0 / twin.low, 1.0)


def claim(ratio: Interval, band: float) -> str:
    """Say ``faster`` or ``slower`` where the whole interval lies outside the A/A band, else ``same``."""
    if ratio.low > band:
        return "slower"
    if ratio.high < 1.0 / band:
        return "faster"
    return "same"
