"""Where the time of a run went: its phases, the operators of a step, and the largest lever."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from unitrain.backends.contract import Plan, Program, Statistics
from unitrain.spans import IMPORTING, STARTING, WAITING, Recorder, Span, covered_seconds, own_seconds

FIRST_BLOCK, STEPS, WATCHED, PLACING, PROFILER = (
    "first block of steps",
    "training steps",
    "training steps, watched",
    "place data",
    "start and read the profiler",
)
# Spans during which the main thread prepares what the device then waits for.
_FEEDING = (WAITING, PLACING, "augment")
# Blocks are watched until they have taken this long, or there were as many.
_WATCH_SECONDS, _WATCH_BLOCKS = 1.0, 3
_FRAMEWORKS = {"keras": "tensorflow"}


@contextmanager
def watched(recorder: Recorder, backend: str, program: Program) -> Iterator[None]:
    """Record what a program does while it trains; its framework's profiler sees a few blocks after the first.

    What the program offers is exchanged for what also looks at the clock, for a while.
    """
    recorder.backend = backend
    profiler = importlib.import_module(f"unitrain.backends.{backend}.profile").watch
    place, run_steps = program.place, program.run_steps
    blocks, seconds = 0, 0.0

    def placed(data: Any) -> Any:
        with recorder.span(PLACING):
            return place(data)

    def run(data: Any, plan: Plan) -> Statistics:
        nonlocal blocks, seconds
        watching = 0 < blocks <= _WATCH_BLOCKS and seconds < _WATCH_SECONDS
        name = FIRST_BLOCK if blocks == 0 else WATCHED if watching else STEPS
        blocks += 1
        recorder.steps[name] = recorder.steps.get(name, 0) + len(plan)
        if not watching:
            with recorder.span(name):
                return run_steps(data, plan)
        with recorder.span(PROFILER), profiler(program, recorder):
            start = perf_counter()
            with recorder.span(name):
                result: Statistics = run_steps(data, plan)
            seconds += perf_counter() - start
        return result

    vars(program).update(place=placed, run_steps=run)
    try:
        yield
    finally:
        for name in ("place", "run_steps"):
            vars(program).pop(name)


@dataclass(frozen=True)
class Phase:
    """A part of the run: seconds without the parts inside of it, and how often it came."""

    name: str
    seconds: float
    share: float
    count: int


@dataclass(frozen=True)
class Operator:
    """What a step is made of: seconds a step, as part of the time of a step, and the layer where it is known."""

    name: str
    layer: str | None
    seconds: float
    share: float


@dataclass(frozen=True)
class Profile:
    """Where the time went.

    Parameters
    ----------
    seconds
        Of the whole run, from the command's start to the last file written.
    phases
        The longest first; what is in none of them is the last, ``elsewhere``.
    step_seconds
        Of a training step; None where there was but one block.
    operators
        The most costly first; all of them.
    waited
        The part of the time after the first block in which the device had to wait for data.
    lever
        A sentence that names what is worth most to be changed.
    """

    seconds: float
    backend: str
    steps: int
    phases: tuple[Phase, ...]
    step_seconds: float | None
    operators: tuple[Operator, ...]
    waited: float
    lever: str


def summarize(recorder: Recorder) -> Profile:
    """Tell where the time of what was recorded went."""
    wall = (recorder.ended or recorder.started) - recorder.started
    own = [one for one in recorder.spans if one.kind == "phase" and one.thread == recorder.main]
    phases = _phases(own, wall)
    times = {name: sum(one.seconds for one in own if one.name == name) for name in (FIRST_BLOCK, STEPS, WATCHED)}
    usual = STEPS if recorder.steps.get(STEPS) else WATCHED
    step_seconds = times[usual] / recorder.steps[usual] if recorder.steps.get(usual) else None
    operators = _operators(recorder.spans, times[WATCHED], step_seconds or 0.0)
    waited = _waited(own)
    return Profile(
        wall,
        recorder.backend,
        sum(recorder.steps.values()),
        phases,
        step_seconds,
        operators,
        waited[0],
        _lever(wall, phases, operators, step_seconds or 0.0, recorder, waited),
    )


def _phases(own: Sequence[Span], wall: float) -> tuple[Phase, ...]:
    seconds: dict[str, float] = {}
    count: dict[str, int] = {}
    for one, alone in zip(own, own_seconds(own), strict=True):
        seconds[one.name] = seconds.get(one.name, 0.0) + alone
        count[one.name] = count.get(one.name, 0) + 1
    found = [Phase(name, value, value / wall, count[name]) for name, value in seconds.items()]
    left = wall - sum(seconds.values())
    return (*sorted(found, key=lambda phase: -phase.seconds), Phase("elsewhere", left, left / wall, 1))


def _operators(spans: Sequence[Span], watched_seconds: float, step_seconds: float) -> tuple[Operator, ...]:
    """Share out the watched time among the operators.

    Each gets its own seconds, without those of operators inside of it. Where several threads or streams compute at
    the same time, all are scaled so that together they take the time in which at least one was busy.
    """
    found = [one for one in spans if one.kind == "operator"]
    if not found or watched_seconds <= 0:
        return ()
    alone = own_seconds(found)
    scale = min(covered_seconds(found), watched_seconds) / max(sum(alone), 1e-12)
    seconds: dict[tuple[str, str | None], float] = {}
    for one, value in zip(found, alone, strict=True):
        key = (one.name, one.layer)
        seconds[key] = seconds.get(key, 0.0) + scale * value
    shares = {key: value / watched_seconds for key, value in seconds.items()}
    operators = [Operator(name, layer, share * step_seconds, share) for (name, layer), share in shares.items()]
    return tuple(sorted(operators, key=lambda operator: -operator.share))


def _waited(own: Sequence[Span]) -> tuple[float, float]:
    """Return the share of training, and the seconds, in which data was prepared between two blocks of steps."""
    blocks = [one for one in own if one.name in (FIRST_BLOCK, STEPS, WATCHED)]
    if len(blocks) < 2:
        return 0.0, 0.0
    start, end = blocks[0].end, blocks[-1].end
    feeding = [one for one in own if one.name in _FEEDING and one.start >= start and one.end <= end]
    seconds = covered_seconds(feeding)
    around = sum(one.seconds for one in blocks[1:]) + seconds
    return seconds / around, seconds


def _lever(
    wall: float,
    phases: Sequence[Phase],
    operators: Sequence[Operator],
    step_seconds: float,
    recorder: Recorder,
    waited: tuple[float, float],
) -> str:
    """Name the largest of: a phase, a layer or operator of the steps, waiting for data."""
    training = step_seconds * sum(recorder.steps.values()) / wall
    candidates: list[tuple[float, str]] = []
    for phase in phases:
        share = phase.share
        if phase.name in (STEPS, WATCHED, PROFILER, *_FEEDING):
            continue
        if phase.name == FIRST_BLOCK:
            # What it takes beyond its steps: tracing, compiling, memory got for the first time.
            share -= step_seconds * recorder.steps[FIRST_BLOCK] / wall
            said = f"{_percent(share)} of the run was tracing or compiling in the first block of steps"
            if not step_seconds:
                said = f"{_percent(share)} of the run was its only block of steps"
        elif phase.name == IMPORTING:
            said = f"{_percent(share)} of the run was importing {_FRAMEWORKS.get(recorder.backend, recorder.backend)}"
        elif phase.name == STARTING:
            said = f"{_percent(share)} of the run was starting Python and the command"
        elif phase.name == "elsewhere":
            said = f"{_percent(share)} of the run was between the parts that are known"
        else:
            said = f"{_percent(share)} of the run was: {phase.name}"
        candidates.append((share, said))
    by_layer: dict[str, float] = {}
    for operator in operators:
        name = operator.layer or operator.name
        by_layer[name] = by_layer.get(name, 0.0) + operator.share
    for name, share in by_layer.items():
        candidates.append(
            (share * training, f"{_percent(share)} of a step is {name}; steps are {_percent(training)} of the run")
        )
    share, seconds = waited
    candidates.append((seconds / wall, f"the device waited {_percent(share)} of the training time for data"))
    return max(candidates)[1]


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
