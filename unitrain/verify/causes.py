"""From many failing tensors to their causes: the first part of each backend that fails by itself."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from unitrain.verify.experiments import Experiment
from unitrain.verify.findings import LOSS, MODEL, OPTIMIZER, Cause, Finding, Report
from unitrain.verify.runner import Cast
from unitrain.verify.subject import Subject


def find_causes(report: Report, subject: Subject, cast: Cast, experiments: Sequence[Experiment]) -> list[Cause]:
    """Return the causes of a report's failures, backend by backend in the order of the graph.

    What fails by itself is a cause. Where nothing does, the first part that fails in the whole model is named.
    """
    order = [*report.layers, OPTIMIZER]
    causes: list[Cause] = []
    for runner in cast.candidates:
        failures = [item for item in report.failures if item.backend == runner.label]
        isolated = [item for item in failures if item.name.isolated]
        chosen = isolated or _first(failures, order)
        chosen.sort(key=lambda item: _place(item, order))
        for part, group in groupby(chosen, key=lambda item: item.name.part):
            causes.append(_cause(runner.label, part, list(group), report, subject))
    return causes


def _first(failures: list[Finding], order: list[str]) -> list[Finding]:
    """Return the failures of the first part that fails, at the first level where one does."""
    if not failures:
        return []
    level = failures[0].name.level
    here = [item for item in failures if item.name.level == level]
    part = min(here, key=lambda item: _place(item, order)).name.part
    return [item for item in here if item.name.part == part]


def _place(finding: Finding, order: list[str]) -> tuple[int, str]:
    part = finding.name.part
    return (order.index(part) if part in order else len(order) + (part == MODEL), part)


def _cause(backend: str, part: str, failures: list[Finding], report: Report, subject: Subject) -> Cause:
    failures.sort(key=lambda item: -item.verdict.ratio)
    kind: str
    if part == OPTIMIZER:
        kind = subject.optimizer.type
    elif part.startswith(f"{LOSS} of "):
        kind = subject.losses[part.removeprefix(f"{LOSS} of ")].loss.type
    else:
        kind = report.layers.get(part, "")
    tensors = tuple(dict.fromkeys(item.name.tensor for item in failures))
    return Cause(backend, part, kind, failures[0].name.level, tensors, failures[0].verdict.ratio)
