"""Takes the form of a program with which a run ends first, from what is tried now or was found by an earlier run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from unitrain.backends.contract import Backend, Candidate, Settings
from unitrain.graph.graph import Graph
from unitrain.spec.errors import unknown_name
from unitrain.spec.execution import ExecutionSpec
from unitrain.train.tuner import Trial, Tuner
from unitrain.train.tuning_cache import KnownTrials

LONG = 60.0
"""Seconds from which on a run is worth tuning in the mode ``auto``."""
WORTH = 0.97
"""The share of the standard form's time that another must stay below: less is within the noise."""


@dataclass(frozen=True)
class Choice:
    """The form that trains, and what it was chosen from.

    Parameters
    ----------
    candidate
        Its name.
    trials
        The standard form first; empty where nothing had to be tried.
    seconds
        How long trying took; None where an earlier run had tried.
    """

    candidate: str | None
    trials: tuple[Trial, ...] = ()
    seconds: float | None = 0.0

    def lines(self) -> tuple[str, ...]:
        """Tell what was chosen, in a line; in none where nothing was tried."""
        if not self.trials:
            return ()
        standard, chosen = self.trials[0], next(one for one in self.trials if one.candidate == self.candidate)
        how = "as an earlier run found" if self.seconds is None else f"found in {self.seconds:.1f} s"
        if chosen is standard:
            return (f"execution: {self.candidate}, the standard form ({how})",)
        assert standard.step_seconds is not None
        assert chosen.step_seconds is not None
        times = standard.step_seconds / chosen.step_seconds
        return (f"execution: {self.candidate}, a step {times:.2f} times as fast as {standard.candidate} ({how})",)


def best(trials: Sequence[Trial], steps: int) -> str:
    """Return the name of the form with which so many steps end first: the standard one, unless another is worth it."""
    standard = trials[0].seconds(steps)
    fastest = min(trials, key=lambda trial: trial.seconds(steps))
    return fastest.candidate if fastest.seconds(steps) < WORTH * standard else trials[0].candidate


def check_candidate(backend: Backend, graph: Graph, settings: Settings, candidate: str) -> None:
    """See that a backend has a form of this name here. Raises `InputError`, which names those there are."""
    names = [one.name for one in backend.candidates(graph, settings)]
    if candidate not in names:
        raise unknown_name("form of execution", candidate, names, ("execution", "candidate"))


def choose(spec: ExecutionSpec, tuner: Tuner, known: KnownTrials) -> Choice:
    """Choose the form for a run, as a recipe wants it; what an earlier run has found is not tried again."""
    settings, steps = tuner.settings, tuner.steps
    candidates = tuner.backend.candidates(tuner.graph, settings)
    standard = candidates[0].name if candidates else None
    if spec.candidate is not None:
        check_candidate(tuner.backend, tuner.graph, settings, spec.candidate)
        return Choice(spec.candidate)
    if spec.mode == "fixed" or len(candidates) < 2 or (spec.mode == "auto" and settings.deterministic):
        return Choice(standard)
    trials = known.load(tuner)
    if trials is not None and not _left_out(trials, candidates, steps):
        return Choice(best(trials, steps), trials, None)
    if spec.mode == "auto" and tuner.estimate().seconds(steps) < LONG:
        return Choice(standard)
    return try_all(spec, tuner, known)


def try_all(spec: ExecutionSpec, tuner: Tuner, known: KnownTrials) -> Choice:
    """Try all forms anew, keep what was found, and choose."""
    started = time.perf_counter()
    trials = tuner.trials(spec.seconds)
    known.store(tuner, trials)
    return Choice(best(trials, tuner.steps), trials, time.perf_counter() - started)


def _left_out(trials: Sequence[Trial], candidates: Sequence[Candidate], steps: int) -> bool:
    """Tell whether a form was left out for a shorter run, and may pay in this one."""
    costs = {candidate.name: candidate.first_seconds for candidate in candidates}
    return any(
        not trial.tried and 2.0 * costs.get(trial.candidate, 0.0) <= trials[0].seconds(steps) for trial in trials
    )
