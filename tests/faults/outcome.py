"""Plants a fault, verifies, and says what was found; the table of all faults."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass

from faults import (
    convolution_faults,
    keras_faults,
    layer_faults,
    onnx_faults,
    program_faults,
    recurrent_faults,
    reference_faults,
    sequence_faults,
    training_faults,
    vision_faults,
)
from faults.planting import Fault

from unitrain.verify.findings import Report
from unitrain.verify.session import verify

FAULTS: tuple[Fault, ...] = (
    *layer_faults.FAULTS,
    *convolution_faults.FAULTS,
    *training_faults.FAULTS,
    *program_faults.FAULTS,
    *keras_faults.FAULTS,
    *onnx_faults.FAULTS,
    *reference_faults.FAULTS,
    *vision_faults.FAULTS,
    *sequence_faults.FAULTS,
    *recurrent_faults.FAULTS,
)
STEPS = 8


@dataclass(frozen=True)
class Outcome:
    """What verification made of a fault."""

    fault: Fault
    caught: bool
    located: bool
    diagnosed: bool
    level: str
    ratio: float
    words: str


def run(fault: Fault, *, planted: bool = True) -> Report:
    """Verify the fault's model; a fault in NumPy is seen by two others."""
    backends = ["torch", "keras"] if fault.backend == "numpy" else [fault.backend]
    with fault.plant() if planted else contextlib.nullcontext():
        return verify(fault.subject(), dict.fromkeys(backends, "cpu"), steps=STEPS, precision=fault.precision)


def outcome(fault: Fault) -> Outcome:
    """Plant a fault, and say what came of it."""
    report = run(fault)
    causes = [cause for cause in report.causes if cause.backend == fault.backend and cause.part == fault.part]
    named = next((cause for cause in causes if fault.words in cause.diagnosis), causes[0] if causes else None)
    shown = named or (report.causes[0] if report.causes else None)
    return Outcome(
        fault,
        not report.passed,
        named is not None,
        bool(fault.words) and named is not None and fault.words in named.diagnosis,
        shown.level if shown else "",
        shown.worst if shown else 0.0,
        str(shown) if shown else "",
    )


def summary(outcomes: Iterable[Outcome]) -> str:
    """Count what was caught, located and diagnosed."""
    listed = list(outcomes)
    ruled = [item for item in listed if item.fault.words]
    caught, located = sum(item.caught for item in listed), sum(item.located for item in listed)
    return (
        f"{len(listed)} faults: {caught} caught, {located} at the right part; of {len(ruled)} that break a rule with "
        f"words for it {sum(item.diagnosed for item in ruled)} diagnosed"
    )
