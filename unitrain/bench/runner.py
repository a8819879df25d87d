"""From one experiment to one case: everybody builds it, is checked, and is timed against the others."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from unitrain.backends.contract import Arrays
from unitrain.backends.toolkit import Call
from unitrain.bench.results import Case, Ceilings, Point, Row, Work
from unitrain.bench.sides import Side, Tell
from unitrain.machine import peak_memory, reset_peak_memory
from unitrain.spec.errors import InputError
from unitrain.timing import TWIN, Contender, Interval, claim, measure, median_interval, noise_band, ratio_interval
from unitrain.weights.random import stream


@dataclass(frozen=True)
class Entry:
    """One contender of an experiment: its name, whose it is, and how its call is built; None when it cannot."""

    name: str
    side: Side
    build: Callable[[], Call | None]


@dataclass(frozen=True)
class Right:
    """What results are held to.

    Parameters
    ----------
    arrays
        By name, in float64.
    tolerance
        How far a result may lie from them: root mean square of the difference over that of the values.
    """

    arrays: Arrays
    tolerance: float


@dataclass(frozen=True)
class Experiment:
    """One thing that all contenders are to do.

    Parameters
    ----------
    part, name, about, work
        As in `Case`.
    entries
        The contenders; the first that works is the baseline.
    expected
        Computes what is right.
    device, point
        As asked for, and as in `Case`.
    memory
        Tells the peak memory of a side, where it is not to be taken from this process.
    """

    part: str
    name: str
    about: str
    work: Work
    entries: Sequence[Entry]
    expected: Callable[[], Right]
    device: str = "cpu"
    point: Point | None = None
    memory: Callable[[Side], int | None] | None = None


@dataclass
class Conditions:
    """How everything is timed.

    Parameters
    ----------
    rounds, sample_seconds
        As for `timing.measure`.
    case_seconds
        Seconds for the rounds of one case.
    seed
        Keys data, weights, orders and bootstrap.
    ceilings
        Of each device.
    tell
        Told what is being done.
    deadline
        By ``clock``: no case is begun after it.
    """

    rounds: int = 15
    sample_seconds: float = 0.01
    case_seconds: float = 30.0
    seed: int = 0
    ceilings: dict[str, Ceilings] = field(default_factory=dict)
    tell: Tell = lambda message: None
    deadline: float = float("inf")
    clock: Callable[[], float] = time.perf_counter

    @property
    def left(self) -> float:
        """Seconds to the deadline."""
        return self.deadline - self.clock()

    def generator(self, *purpose: str) -> np.random.Generator:
        """Return the generator for one purpose."""
        return stream(self.seed, "bench", *purpose)

    def until(self, seconds: float) -> Conditions:
        """Return the same with a nearer deadline."""
        return replace(self, deadline=min(self.deadline, self.clock() + seconds))


def run_experiment(experiment: Experiment, conditions: Conditions) -> Case:
    """Build, check and time."""
    label = f"{experiment.part}: {experiment.name}"
    case = Case(
        experiment.part, experiment.name, experiment.about, experiment.work, experiment.device, point=experiment.point
    )
    conditions.tell(f"{label}: what is right")
    expected = experiment.expected()
    ready: dict[str, tuple[Entry, Call, Row]] = {}
    for entry in experiment.entries:
        conditions.tell(f"{label}: {entry.name}")
        row, call = _first(entry, expected)
        if row is None:
            continue
        case.rows.append(row)
        if call is not None:
            ready[entry.name] = entry, call, row
            if experiment.memory is not None:
                conditions.tell(f"{label}: {entry.name} in a fresh process")
                row.memory = experiment.memory(entry.side)
    if not ready:
        return case
    case.baseline, (first, _, _) = next(iter(ready.items()))
    contenders = [Contender(name, call.run, entry.side.wait) for name, (entry, call, _) in ready.items()]
    # The twin is built anew: how its arrays happen to lie in memory is part of the noise.
    twin = first.build()
    assert twin is not None
    twin.run()
    contenders.append(Contender(TWIN, twin.run, first.side.wait))
    conditions.tell(f"{label}: {conditions.rounds} rounds of {', '.join(ready)}")
    samples = measure(
        contenders,
        rounds=conditions.rounds,
        generator=conditions.generator(label, "order"),
        sample_seconds=conditions.sample_seconds,
        budget=min(conditions.case_seconds, max(conditions.left, 0.0)),
    )
    case.rounds = samples.rounds
    judge(case, {name: row for name, (_, _, row) in ready.items()}, samples.seconds, samples.calls, conditions)
    return case


def judge(
    case: Case,
    rows: Mapping[str, Row],
    seconds: Mapping[str, np.ndarray[tuple[int], np.dtype[np.float64]]],
    calls: Mapping[str, int],
    conditions: Conditions,
) -> None:
    """Fill a case's rows from what was measured."""
    generator = conditions.generator(case.part, case.name, "bootstrap")
    baseline = seconds[case.baseline]
    case.twin = ratio_interval(seconds[TWIN], baseline, generator)
    case.band = noise_band(case.twin)
    for name, row in rows.items():
        row.seconds = median_interval(seconds[name], generator)
        row.fastest = float(seconds[name].min())
        row.calls = calls[name]
        row.ratio = Interval(1.0, 1.0, 1.0)
        row.claim = "baseline"
        if name != case.baseline:
            row.ratio = ratio_interval(seconds[name], baseline, generator)
            row.claim = claim(row.ratio, case.band)


def _first(entry: Entry, right: Right) -> tuple[Row | None, Call | None]:
    """Build a call, run it for the first time, and hold its result to what is right.

    Without a call where that did not work or the result is wrong: the row then says why. Without a row where the
    framework has no such thing.
    """
    side = entry.side
    row = Row(entry.name, side.name, side.device)
    gc.collect()
    before = reset_peak_memory()
    side.toolkit.device_memory(side.device)
    started = time.perf_counter()
    try:
        call = entry.build()
        if call is None:
            return None, None
        result = call.run()
        side.wait()
        row.first_seconds = time.perf_counter() - started
        call.run()
        side.wait()
        row.memory = _memory(side, before)
        row.error = error_of(call.read(result), right.arrays)
    except (KeyboardInterrupt, AssertionError):
        raise
    except InputError as error:
        row.failure = error.problems[0].message
        return row, None
    except Exception as error:  # frameworks raise what they like: it is reported, and the others go on
        row.failure, row.wrong = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}", True
        return row, None
    # Not `>`: NaN is wrong too.
    if not row.error <= right.tolerance:
        row.failure = f"wrong: off by {row.error:.1e} of its size, {right.tolerance:.0e} allowed; not timed"
        row.wrong = True
        return row, None
    return row, call


def _memory(side: Side, before: int | None) -> int | None:
    on_device = side.toolkit.device_memory(side.device)
    if on_device is not None:
        return on_device
    peak = peak_memory()
    return None if peak is None or before is None else max(peak - before, 0)


def error_of(found: Arrays, expected: Arrays) -> float:
    """Return the largest relative error of several arrays: root mean squares of difference over values.

    An array that is missing, or has another shape, is infinitely wrong; zeros that should be there may be missing, as
    frameworks leave out gradients on which nothing depends.
    """
    worst = 0.0
    for name, right in expected.items():
        if name not in found:
            worst = max(worst, float("inf") if np.any(right) else 0.0)
            continue
        if found[name].shape != right.shape:
            return float("inf")
        error = float(np.sqrt(np.mean(np.square(found[name].astype(np.float64) - right)))) if right.size else 0.0
        size = float(np.sqrt(np.mean(np.square(right.astype(np.float64))))) if right.size else 1.0
        if np.isnan(error):
            return float("nan")
        worst = max(worst, error / size if size else (float("inf") if error else 0.0))
    return worst
