"""A whole benchmark: ceilings first, then part by part, to a report."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from unitrain.backends.versions import versions
from unitrain.bench import accuracy, curves, gradients, inference, machine, ops, training
from unitrain.bench.models import TimedModel
from unitrain.bench.results import Case, Ceilings, Report
from unitrain.bench.runner import Conditions, Experiment, run_experiment
from unitrain.bench.sides import Side, Sides
from unitrain.bench.why import why
from unitrain.machine import describe
from unitrain.spec.errors import InputError

# Does one case under given conditions.
Job = Callable[[Conditions], Case]

PARTS = ("ops", "gradients", "training", "inference")
# What `--quick` allows itself, importing the frameworks included.
QUICK_SECONDS = 30.0
# Processes ready to run, for each processor, from which on the report says that the machine was busy.
_BUSY = 0.5


@dataclass(frozen=True)
class Options:
    """What is to be timed.

    Parameters
    ----------
    parts
        Of `PARTS`, and ``curves``, which takes longest.
    models
        Those of gradients, training and inference.
    size
        Of the matrices.
    quick
        Small sizes, few rounds, and an end after `QUICK_SECONDS`.
    threads
        Of every side.
    """

    parts: Sequence[str] = PARTS
    models: Sequence[TimedModel] = ()
    size: int = 2048
    quick: bool = False
    threads: int = 1


def bench(
    sides: Sides, options: Options, conditions: Conditions, done: Callable[[Case], None] = lambda case: None
) -> Report:
    """Time everything that the options name, on all sides; ``done`` is told of every case as it is finished."""
    # What the imports left behind stays: a full collection would look through all of it, for half a second each time.
    gc.collect()
    gc.freeze()
    try:
        return _bench(sides, options, conditions, done)
    finally:
        gc.unfreeze()


def _bench(sides: Sides, options: Options, conditions: Conditions, done: Callable[[Case], None]) -> Report:
    report = Report(
        list(options.parts),
        describe(),
        versions(sides.names),
        dict(sides.threads),
        conditions.seed,
        conditions.ceilings,
        notes=list(sides.notes),
    )
    load = report.machine.get("load", 0.0)
    if load > _BUSY * report.machine["processors"]:
        report.notes.append(
            f"other work was running at the start, a load of {load} on {report.machine['processors']} processors: "
            "operations on several threads wait for the slowest of them"
        )
    threads = max(sides.threads.values())
    for device, present in sides.by_device.items():
        conditions.tell(f"ceilings of {device}")
        conditions.ceilings[device] = measure_ceilings(present, device, threads, quick=options.quick)
    for number, part in enumerate(options.parts):
        started = time.perf_counter()
        within = conditions.until(conditions.left / (len(options.parts) - number))
        queue = [
            job
            for device, present in sides.by_device.items()
            for job in _jobs(part, present, device, options, conditions)
        ]
        first = len(queue)  # one case of each part is done however late it is
        while queue and (within.left > 0 or len(queue) == first):
            fair = within.until(max(within.left, 0.0) / len(queue))
            if part == "curves":
                # Many points; what counts is where they lie, and not the last per cent.
                fair = replace(fair, case_seconds=min(fair.case_seconds, curves.CASE_SECONDS))
            name, job = queue.pop(0)  # popped, as it holds the data
            try:
                case = job(fair)
            except InputError as error:
                problem = error.problems[0]
                report.notes.append("; ".join(filter(None, (f"{name} is left out: {problem.message}", problem.hint))))
                continue
            if not case.rows:
                report.notes.append(f"{part}: no side has {name}")
                continue
            _lift(case, conditions.ceilings)
            explain(case, conditions.ceilings)
            report.cases.append(case)
            done(case)
        if queue:
            report.notes.append(f"{part}: no time was left for {', '.join(name for name, _ in queue)}")
        report.seconds[part] = time.perf_counter() - started
    return report


def _jobs(
    part: str, sides: Sequence[Side], device: str, options: Options, conditions: Conditions
) -> list[tuple[str, Job]]:
    """Return what a part does on a device: names, and what does it under given conditions."""
    models, quick = options.models, options.quick
    trains = any(side.backend.trains for side in sides)
    found: list[Experiment] = []
    goals: dict[str, accuracy.Goal] = {}
    match part:
        case "ops":
            found = ops.experiments(sides, device, conditions, options.size, quick=quick)
        case "gradients":
            found = gradients.experiments(sides, device, conditions, models, quick=quick)
        case "training":
            found = training.experiments(sides, device, models, quick=quick)
            goals = accuracy.goals([model.name for model in models], quick=quick) if trains else {}
        case "inference":
            found = inference.experiments(sides, device, models, quick=quick)
        case "curves":
            found = curves.experiments(sides, device, models, options.threads, quick=quick)
    return [
        *((experiment.name, partial(run_experiment, experiment)) for experiment in found),
        *(
            (f"{name} to an accuracy", partial(accuracy.reach, name, goal, sides, device, quick=quick))
            for name, goal in goals.items()
        ),
    ]


def measure_ceilings(sides: Sequence[Side], device: str, threads: int, *, quick: bool) -> Ceilings:
    """Measure what a device can do at best, and what an operation on one element costs on each side."""
    seconds = 0.2 if quick else 0.6
    on_cpu = device == "cpu"
    size = 1024 if on_cpu else 8192
    products = [ops.best_seconds(side, "matmul", ((size, size), (size, size)), seconds) for side in sides]
    flops = max((2.0 * size**3 / found for found in products if found), default=0.0)
    if on_cpu:
        bandwidth = machine.memory_bandwidth(threads, seconds)
    else:
        long = (1 << 28,)
        sums = [ops.best_seconds(side, "add", (long, long), seconds) for side in sides]
        bandwidth = max((3.0 * 4 * long[0] / found for found in sums if found), default=0.0)
    empty = {side.name: ops.best_seconds(side, "add", ((1,), (1,)), 0.05, calls=50) for side in sides}
    if not flops or not bandwidth:
        # onnxruntime alone: NumPy tells what the machine can do.
        flops, bandwidth = flops or _numpy_flops(size), bandwidth or machine.memory_bandwidth(threads, seconds)
    return Ceilings(flops, bandwidth, {name: found for name, found in empty.items() if found})


def _numpy_flops(size: int) -> float:
    import numpy as np

    a = np.ones((size, size), np.float32)
    return 2.0 * size**3 / machine.best_of(lambda: a @ a, lambda: None, 0.3)


def explain(case: Case, ceilings: Mapping[str, Ceilings]) -> None:
    """Say of each row what limits it."""
    for row in case.rows:
        if row.seconds is not None and case.work.bytes:
            row.why = why(row.seconds.value, case.work, row.backend, ceilings[case.device])


def _lift(case: Case, ceilings: dict[str, Ceilings]) -> None:
    """Raise the ceiling of arithmetic where a matrix product was faster than the one that set it."""
    if not case.name.startswith("matmul"):
        return
    for row in case.rows:
        if row.fastest:
            ceiling = ceilings[case.device]
            ceiling.flops = max(ceiling.flops, case.work.flops / row.fastest)
