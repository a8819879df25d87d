"""The known differences of optimizers, tried on the probe whose gradients are given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from unitrain.backends.contract import Plan
from unitrain.spec.optimizers import Optimizer
from unitrain.train.optimizers import Rule
from unitrain.train.update import Update
from unitrain.verify.diagnosis.fields import alternatives
from unitrain.verify.diagnosis.optimizer_rules import RULES
from unitrain.verify.diagnosis.optimizer_steps import moved_decay, other_steps, own_decays
from unitrain.verify.experiments.probes import RATES
from unitrain.verify.experiments.steps import AT_START, Steps
from unitrain.verify.findings import TensorName
from unitrain.verify.runner import Array, Runner
from unitrain.verify.verdict import judge

Found = Mapping[TensorName, Array]


@dataclass(frozen=True)
class Meaning:
    """Another meaning of the optimizer: in words, and as the probe changed to it."""

    text: str
    steps: Steps


def explain_optimizer(steps: Steps, optimizer: Optimizer, found: Found, reference: Runner, narrow: Runner) -> str:
    """Return the difference that explains what a backend's optimizer did, or nothing.

    Parameters
    ----------
    steps
        The probe, begun.
    optimizer
        What the spec says.
    found
        What the backend computed on it.
    reference, narrow
        NumPy in float64 and float32.
    """
    if text := _start(steps, found, reference):
        return text
    for number, meaning in enumerate(_meanings(steps, optimizer)):
        wide = _recomputed(meaning, reference, number)
        single = _recomputed(meaning, narrow, number)
        known = [name for name in found if name in wide and not name.tensor.startswith("loss")]
        if known and all(judge(found[name], wide[name], single[name], growth=name.growth).passed for name in known):
            return meaning.text
    return ""


def _recomputed(meaning: Meaning, runner: Runner, number: int) -> dict[TensorName, Array]:
    return replace(meaning.steps, key=f"{meaning.steps.key} meaning {number}").tensors(runner)


def _start(steps: Steps, found: Found, reference: Runner) -> str:
    """Explain optimizer state that is other from the start."""
    right = steps.tensors(reference)
    for name, array in found.items():
        if not name.tensor.endswith(AT_START) or np.array_equal(array, right[name]):
            continue
        slot = name.tensor.partition(" of ")[0]
        if np.ptp(array) == 0 and np.ptp(right[name]) == 0:
            return f"begins with {slot} at {array.flat[0]:g}, the spec says {right[name].flat[0]:g}"
        return f"begins with another {slot} than the spec's"
    return ""


def _meanings(steps: Steps, optimizer: Optimizer) -> Iterator[Meaning]:
    update = steps.rule.updater
    assert isinstance(update, Update)
    decays = update.decays

    def with_updater(text: str, updater: Update) -> Meaning:
        plans = tuple(_planned(plan, updater, number) for number, plan in enumerate(steps.plans))
        return Meaning(text, replace(steps, rule=replace(steps.rule, updater=updater), plans=plans))

    for text, changed in alternatives(optimizer):
        if _same_slots(changed, update, decays):
            other = Update(changed, own_decays(decays))  # type: ignore[arg-type]  # of the same class
            yield with_updater(text, other)
            # The same, where the scalars that the trainer hands over are still the spec's.
            yield Meaning(text, replace(steps, rule=replace(steps.rule, updater=other)))
    for text, spec in moved_decay(optimizer):
        yield with_updater(text, Update(spec, own_decays(decays)))
    for text, make in RULES.get(optimizer.type, ()) if update.rule.slots else ():
        yield with_updater(text, _with_rule(Update(optimizer, decays), make(update.rule)))
    for text, updater in other_steps(optimizer, decays):
        yield with_updater(text, updater)
    for factor, text in _plan_factors(steps):
        scaled = tuple(replace(plan, scale=plan.scale * factor) for plan in steps.plans)
        yield Meaning(text, replace(steps, plans=scaled))
    for shift, text in ((-1, "uses the coefficients (learning rate, bias correction) of the update before"),
                        (1, "uses the coefficients (learning rate, bias correction) of the update after")):  # fmt: skip
        rows = [plan.coefficients for plan in steps.plans]
        moved = [rows[min(max(number + shift, 0), len(rows) - 1)] for number in range(len(rows))]
        plans = tuple(replace(plan, coefficients=row) for plan, row in zip(steps.plans, moved, strict=True))
        yield Meaning(text, replace(steps, plans=plans))


def _same_slots(changed: Any, update: Update, decays: Mapping[str, bool]) -> bool:
    """Tell whether a changed optimizer keeps the same state, without which it cannot be tried from a given one."""
    return Update(changed, decays).slots == update.slots


def _planned(plan: Plan, updater: Update, number: int) -> Plan:
    """Return a plan with the coefficients that another updater has for the same learning rate."""
    row = updater.coefficients(np.array([updater.spec.lr * RATES[number]]), number)
    return replace(plan, coefficients=np.repeat(row, len(plan), axis=0))


def _plan_factors(steps: Steps) -> Iterator[tuple[float, str]]:
    count = len(steps.plans[0])
    if count > 1:
        yield float(count), f"adds up the gradients of {count} batches, where the spec takes their mean"
        yield 1.0 / count, f"divides the gradients of {count} batches twice"
    yield -1.0, "goes along the gradient, not against it"


def _with_rule(update: Update, rule: Rule) -> Update:
    update.rule = rule
    return update
