"""Tries the forms in which a backend can train a program.

A form can be taken only where its numbers agree with the standard one's: after a few steps from the same start, losses
and weights may be as far from the same steps in float64 as the standard form's are, times `TIMES`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from unitrain.backends.contract import Arrays, Backend, Batchable, Candidate, Plan, Program, Settings
from unitrain.backends.precision import stored_in
from unitrain.backends.rule import TrainingRule
from unitrain.graph.graph import Graph
from unitrain.spec.errors import InputError
from unitrain.train.plan import Batches
from unitrain.train.update import Update

Array = npt.NDArray[Any]

STEPS = 3
"""Steps after which numbers are compared."""
TIMES = 8.0
ULPS = 64.0
"""What is allowed beside: so many units in the last place of a tensor's root mean square."""
_BATCHES = 16
# Every form that is tried holds a copy of the sample, in float64 one of twice the size.
_SAMPLE_BYTES = 8 * 2**20
_ROUND = 0.02


class Trial(BaseModel):
    """What came of one form.

    Parameters
    ----------
    candidate, what
        Name of the form, and what it does.
    first_seconds, step_seconds
        What it costs before its first step, and of a step the median; None where it was not tried or does not agree.
    refused
        Why it cannot be taken; empty where it can.
    tried
        Whether it was run at all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    candidate: str
    what: str
    first_seconds: float | None = None
    step_seconds: float | None = None
    refused: str = ""
    tried: bool = True

    def seconds(self, steps: int) -> float:
        """Return how long a run of so many steps takes; infinity where it cannot."""
        if self.refused or self.step_seconds is None or self.first_seconds is None:
            return float("inf")
        return self.first_seconds + steps * self.step_seconds


@dataclass
class Tuner:
    """Tries the forms of one program.

    Parameters
    ----------
    backend, graph, weights, settings, rule
        As for `contract.Backend.compile`.
    update
        The updater of the rule.
    data, batches
        The training set, and how it is cut; some batches of the first epoch are tried.
    steps
        How many steps the run takes.
    """

    backend: Backend
    graph: Graph
    weights: Arrays
    settings: Settings
    rule: TrainingRule
    update: Update
    data: Batchable
    batches: Batches
    steps: int

    @cached_property
    def _sample(self) -> Batchable:
        """Some whole batches of the first epoch, no more than need be of large ones, or all there is."""
        arrays = [*self.data.inputs.values(), *self.data.targets.values()]
        of_sample = sum(array.dtype.itemsize * math.prod(array.shape[1:]) for array in arrays)
        batches = min(_BATCHES, max(1, _SAMPLE_BYTES // max(1, of_sample * self.batches.batch_size)))
        rows = np.sort(self.batches.order(0)[: batches * self.batches.batch_size])
        return Batchable(
            {name: array[rows] for name, array in self.data.inputs.items()},
            {name: array[rows] for name, array in self.data.targets.items()},
            None if self.data.weight is None else self.data.weight[rows],
        )

    @cached_property
    def _plan(self) -> Plan:
        samples = len(self._sample)
        size = min(self.batches.batch_size, samples)
        # A small data set is gone through several times.
        count = max(samples // size, STEPS)
        return self._planned(np.resize(np.arange(samples // size * size, dtype=np.int32), (count, size)))

    def _planned(self, indices: npt.NDArray[np.int32]) -> Plan:
        steps = len(indices)
        coefficients = self.update.coefficients(np.full(steps, self.update.spec.lr), 0)
        scale = 2.0**15 if self.settings.precision == "mixed_float16" else None
        return Plan(indices, coefficients, np.ones(steps), np.ones(steps, bool), 0, scale)

    def estimate(self) -> Trial:
        """Build the standard form and time it alone."""
        standard = self.backend.candidates(self.graph, self.settings)[0]
        return self._timed({standard: self._run(self._form(standard))}, 0.0)[0]

    def trials(self, seconds: float) -> tuple[Trial, ...]:
        """Try all forms, the standard one first, and measure for so long those that agree."""
        standard, *others = self.backend.candidates(self.graph, self.settings)
        exact, usual = self._exact(), self._numbers(standard)
        tried = {standard: self._run(self._form(standard))}
        alone = self._timed(tried, 0.0)[0].seconds(self.steps)
        refused: list[Trial] = []
        for candidate in others:
            told = {"candidate": candidate.name, "what": candidate.what}
            if 2.0 * candidate.first_seconds > alone:
                reason = f"the run is too short for it: it costs {candidate.first_seconds:g} s before the first step"
                refused.append(Trial(**told, refused=reason, tried=False))
                continue
            try:
                differs = _difference(self._numbers(candidate), usual, exact, self.settings.precision)
                attempt = self._run(self._form(candidate))
            except Exception as error:  # a compiler's own, of any class: the form is not to be had here
                refused.append(Trial(**told, refused=_first_line(error)))
                continue
            if differs:
                refused.append(Trial(**told, refused=differs))
            else:
                tried[candidate] = attempt
        return (*self._timed(tried, seconds), *refused)

    def _form(self, candidate: Candidate) -> Settings:
        return replace(self.settings, execution=candidate.name)

    def _numbers(self, candidate: Candidate) -> Mapping[str, Array]:
        """Return what comes out after `STEPS` steps, with the dropout masks that all precisions share."""
        return self._run(replace(self._form(candidate), deterministic=True)).numbers

    def _exact(self) -> Mapping[str, Array]:
        """Return the numbers of the standard form in float64; of the wanted precision where there is no float64."""
        settings = replace(self.settings, deterministic=True)
        try:
            return self._run(replace(settings, precision="float64")).numbers
        except InputError:
            return self._run(settings).numbers

    def _run(self, settings: Settings) -> _Attempt:
        """Build a form and take the steps after which numbers are compared."""
        started = time.perf_counter()
        program = self.backend.compile(self.graph, self.weights, settings, self.rule)
        placed = program.place(self._sample)
        first = _beginning(self._plan, STEPS)
        statistics = program.run_steps(placed, first)
        seconds = time.perf_counter() - started
        numbers = {"the loss": statistics.losses, **program.weights()}
        return _Attempt(program, placed, numbers, seconds)

    def _timed(self, attempts: Mapping[Candidate, _Attempt], seconds: float) -> tuple[Trial, ...]:
        """Time forms in turn for so long, three rounds at least; what came before is not counted."""
        lone = {candidate: self._block(attempt, 1) for candidate, attempt in attempts.items()}
        repeats = {candidate: max(1, int(_ROUND / max(one * len(self._plan), 1e-9))) for candidate, one in lone.items()}
        found: dict[Candidate, list[float]] = {candidate: [] for candidate in attempts}
        started = time.perf_counter()
        while len(next(iter(found.values()))) < 3 or time.perf_counter() - started < seconds:
            for candidate, attempt in attempts.items():
                found[candidate].append(self._block(attempt, repeats[candidate]))
        steps = {candidate: float(np.median(times)) for candidate, times in found.items()}
        return tuple(
            Trial(
                candidate=candidate.name,
                what=candidate.what,
                first_seconds=max(attempt.first_seconds - STEPS * steps[candidate], 0.0),
                step_seconds=steps[candidate],
            )
            for candidate, attempt in attempts.items()
        )

    def _block(self, attempt: _Attempt, repeats: int) -> float:
        """Return the seconds of a step, over so many runs of the sample."""
        started = time.perf_counter()
        for _ in range(repeats):
            attempt.program.run_steps(attempt.placed, self._plan)
        return (time.perf_counter() - started) / (repeats * len(self._plan))


@dataclass(frozen=True)
class _Attempt:
    """A form that runs: its program, its data, its numbers after `STEPS` steps, and the seconds up to there."""

    program: Program
    placed: Any
    numbers: Mapping[str, Array]
    first_seconds: float


def _beginning(plan: Plan, steps: int) -> Plan:
    """Return the first steps of a plan."""
    return replace(
        plan,
        indices=plan.indices[:steps],
        coefficients=plan.coefficients[:steps],
        scale=plan.scale[:steps],
        apply=plan.apply[:steps],
    )


def _difference(
    found: Mapping[str, Array], standard: Mapping[str, Array], exact: Mapping[str, Array], precision: str
) -> str:
    """Tell which tensor is further from the exact one than rounding explains; empty where none is."""
    ulp = float(np.finfo(stored_in(precision)).eps)  # type: ignore[arg-type]  # a name of a dtype is one
    for name, reference in exact.items():
        if found[name].shape != standard[name].shape:
            return f"{name}: {len(found[name])} steps, {len(standard[name])} by the standard form"
        reference = reference[: len(standard[name])] if name == "the loss" else reference
        allowed = TIMES * _size(standard[name] - reference) + ULPS * ulp * _size(reference)
        error = _size(found[name] - reference)
        if not error <= allowed:
            return f"other numbers after {STEPS} steps: {name} is off by {error:.2g}, rounding explains {allowed:.2g}"
    return ""


def _size(array: Array) -> float:
    """Return the root mean square, in float64."""
    return float(np.sqrt(np.mean(np.square(np.asarray(array, np.float64))))) if array.size else 0.0


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"cannot be had here: {lines[0][:120]}"
