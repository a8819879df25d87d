"""Signs that an optimizer takes: of a number that is rounding's alone it may be either, and the step is as long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from unitrain.backends.contract import Program
from unitrain.spec.optimizers import Lion, Optimizer
from unitrain.verify.experiments import Steps
from unitrain.verify.findings import Finding, TensorName
from unitrain.verify.runner import Runner
from unitrain.verify.subject import Subject
from unitrain.verify.verdict import bound_for

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]
Tensors = Mapping[TensorName, Array]


def takes_signs(spec: Optimizer) -> bool:
    """Tell whether an optimizer steps by the sign of a number."""
    return isinstance(spec, Lion)


def directions(spec: Optimizer, before: Arrays, after: Arrays) -> dict[str, Array]:
    """Return the numbers whose signs a run in float64 took: b1 m + (1 - b1) g for each parameter.

    Parameters
    ----------
    before, after
        The momentum by parameter on both sides of the update, which tells the gradient: m' = b2 m + (1 - b2) g.
    """
    assert isinstance(spec, Lion)
    found = {}
    for name, momentum in before.items():
        gradient = (after[name] - spec.beta2 * momentum) / (1.0 - spec.beta2)
        found[name] = spec.beta1 * momentum + (1.0 - spec.beta1) * gradient
    return found


def sign_flips(right: Arrays, moved: Sequence[Arrays], ours: Arrays, theirs: Arrays, length: float) -> dict[str, int]:
    """Count the elements that went the other way because of rounding.

    Those that went the other way count where the number is so near to zero that the verdict rule would let a backend
    have one of the other sign: no further than twice the bound of times as far as moved runs are from the reference.
    If one further from zero went the other way, none counts: that is a fault.

    Parameters
    ----------
    right, moved
        `directions` of the reference, and of runs from numbers that were moved by rounding.
    ours, theirs
        How the weights changed in the update.
    length
        How far the update goes.
    """
    found = {}
    for name, direction in right.items():
        flipped = np.abs(theirs[name].astype(np.float64) - ours[name]) > 0.5 * length
        if not flipped.any():
            continue
        strayed = max(float(np.abs(other[name] - direction).max()) for other in moved)
        if np.abs(direction[flipped]).max() > 2.0 * bound_for(direction.size) * strayed:
            return {}
        found[name] = int(flipped.sum())
    return found


def echoes_of_signs(
    subject: Subject,
    steps: Steps,
    moved: Sequence[tuple[Runner, Tensors]],
    findings: Sequence[Finding],
    theirs: Tensors,
    ours: Tensors,
) -> list[Finding]:
    """Excuse how weights and their averages change in an update where rounding sent an element the other way.

    Parameters
    ----------
    steps
        The updates, of the whole model.
    moved
        Who ran from moved numbers, and what they have computed.
    findings, theirs
        Verdicts on a backend, and what it has computed.
    ours
        What the reference has computed.
    """
    named = {name.tensor: name for name in ours}
    excused: dict[str, str] = {}
    for number, state in enumerate(steps.states, start=1):
        places = {name: named[f"momentum of {name}, update {number}"] for name in state.slots["momentum"]}
        changes = {name: named[f"change of {name}, update {number}"] for name in places}
        if not all(place in theirs for place in changes.values()):
            continue
        right = directions(subject.optimizer, state.slots["momentum"], _of(ours, places))
        others = [
            directions(subject.optimizer, runner.given(state.slots["momentum"], f"momentum {number}"), _of(run, places))
            for runner, run in moved
        ]
        length = float(subject.rates(0, number)[-1])
        for name in sign_flips(right, others, _of(ours, changes), _of(theirs, changes), length):
            # What is averaged over the updates is the weight that went the other way.
            for tensor in (changes[name].tensor, f"ema of {name}, update {number}"):
                excused[tensor] = f"flip in the sign of {name}"
    return [
        replace(item, excuse=excused[item.name.tensor]) if item.failed and item.name.tensor in excused else item
        for item in findings
    ]


def _of(tensors: Tensors, places: Mapping[str, TensorName]) -> dict[str, Array]:
    return {name: tensors[place].astype(np.float64) for name, place in places.items()}


def momentum(program: Program) -> dict[str, Array]:
    """Copy the momentum of a program whose optimizer takes signs."""
    return program.slots()["momentum"]
