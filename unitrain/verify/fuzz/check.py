"""What the fuzzer asks of a case: that every backend computes what the reference computes, at all levels."""

from __future__ import annotations

import gc
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from unitrain.verify.findings import LEVELS, Level
from unitrain.verify.fuzz.case import VerifyCase
from unitrain.verify.session import verify

# Trajectories in which drawn models would show a fault, and few enough for a thousand models.
STEPS = 12


@dataclass(frozen=True)
class Failure:
    """What failed.

    Parameters
    ----------
    kind
        Backend, level and kind of layer: while a case is shrunk it must go on failing so.
    message
        In words.
    """

    kind: str
    message: str


def failures(
    case: VerifyCase, backends: Mapping[str, str], levels: Collection[Level] = LEVELS, steps: int = STEPS
) -> list[Failure]:
    """Verify a case on ``backends`` (name to device); return what failed, the causes first. Raises nothing.

    Whatever a framework raises is a failure too.
    """
    try:
        report = verify(case.subject("fuzz"), backends, levels=levels, steps=steps)
    except Exception as error:  # a crash is a finding like any other
        text = " ".join(str(error).split())[:300]
        return [Failure(f"raised {type(error).__name__}", f"{type(error).__name__}: {text}")]
    finally:
        # Compiled functions lie in cycles, tens of megabytes a case, and Python would not look for them for long.
        gc.collect()
    found = [
        Failure(f"{cause.backend} {cause.level} {cause.kind or cause.part}", str(cause)) for cause in report.causes
    ]
    for line in report.trajectories:
        if line.outcome.startswith("FAIL") and not found:
            found.append(Failure(f"{line.backend} trajectory", f"{line.backend}: trajectory {line.outcome}"))
    if not found and not report.passed:
        first = report.failures[0]
        found.append(Failure(f"{first.backend} {first.name.level}", f"{first.backend} {first.name}: {first.verdict}"))
    return found
