"""What a benchmark leaves behind, and its form in JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from unitrain.spec.errors import InputError
from unitrain.timing import Interval

FORMAT = 1


@dataclass(frozen=True)
class Work:
    """What a call has to do, whoever does it.

    Parameters
    ----------
    flops
        Floating-point operations; a multiply-accumulate is two.
    bytes
        Least traffic with memory: every operand read once, every result written once.
    operations
        How many operations one after another it takes: layers of a model, twice that with gradients.
    samples
        Samples of a batch; 0 where there are none.
    """

    flops: float
    bytes: float
    operations: int = 1
    samples: int = 0


@dataclass(frozen=True)
class Point:
    """Where a case lies on a curve.

    Parameters
    ----------
    curve
        Of what: ``mlp inference``.
    over
        Which quantity is changed: ``batch`` or ``width``.
    at
        Its value.
    steps
        Training steps in a call, or 1.
    """

    curve: str
    over: str
    at: int
    steps: int = 1


@dataclass
class Row:
    """One contender in one case.

    Parameters
    ----------
    contender
        Backend, with its mode where it has several.
    backend, device
        Who computed it, and where.
    seconds
        Of a call: median and interval; None where it was not timed.
    fastest
        Of a call: the least of all rounds.
    calls
        Calls in a round.
    ratio
        Time over the baseline's, paired by rounds; None where there is no baseline.
    claim
        ``baseline``, ``faster``, ``slower`` or ``same``, by interval and A/A band.
    first_seconds
        Building and the first call: tracing, compiling, loading.
    memory
        Peak bytes of building and first calls: of the accelerator, or what the process grew by.
    error
        Root mean square error against NumPy in float64, over the root mean square of that.
    why
        A sentence on what limits it.
    failure
        Why it was not timed.
    wrong
        Whether that is because its result is wrong or it broke off; else it said that it cannot.
    extra
        Further numbers: epochs and accuracy of a run.
    """

    contender: str
    backend: str
    device: str
    seconds: Interval | None = None
    fastest: float | None = None
    calls: int = 0
    ratio: Interval | None = None
    claim: str = ""
    first_seconds: float | None = None
    memory: int | None = None
    error: float | None = None
    why: str = ""
    failure: str = ""
    wrong: bool = False
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass
class Case:
    """One thing that all contenders do.

    Parameters
    ----------
    part
        ``ops``, ``gradients``, ``training``, ``inference`` or ``curves``.
    name
        What it is, unique in its part.
    about
        Shapes and settings.
    work
        What it takes.
    device
        ``cpu``, ``cuda``.
    rounds
        How many rounds were done.
    baseline
        The contender that the others are compared with.
    twin
        Ratio of the A/A twin to the baseline.
    band
        Factor below which no difference is claimed.
    rows
        The contenders.
    point
        Where it lies on a curve, if it is of one.
    """

    part: str
    name: str
    about: str
    work: Work
    device: str = "cpu"
    rounds: int = 0
    baseline: str = ""
    twin: Interval | None = None
    band: float | None = None
    rows: list[Row] = field(default_factory=list)
    point: Point | None = None


@dataclass
class Ceilings:
    """What a device can do at best, as measured.

    Parameters
    ----------
    flops
        FLOP/s of the best large matrix product seen, float32.
    bandwidth
        Bytes/s of copy, add or triad through main memory, the best of them.
    empty
        Backend to the seconds of an operation on one element.
    """

    flops: float
    bandwidth: float
    empty: dict[str, float]


@dataclass
class Report:
    """A whole benchmark."""

    parts: list[str]
    machine: dict[str, Any]
    versions: dict[str, str]
    threads: dict[str, int]
    seed: int
    ceilings: dict[str, Ceilings]
    cases: list[Case] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    command: str = ""
    format: int = FORMAT

    def to_plain(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    @property
    def failures(self) -> list[tuple[Case, Row]]:
        """What was wrong or broke off."""
        return [(case, row) for case in self.cases for row in case.rows if row.wrong]


def read_report(path: Path) -> dict[str, Any]:
    """Read the JSON of a benchmark.

    Raises
    ------
    InputError
        The file is not there, or holds something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError("no such file", file=str(path), hint="`unitrain bench --json FILE` writes one") from None
    except UnicodeDecodeError:
        raise InputError("this is not JSON: not even text", file=str(path)) from None
    try:
        plain = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"this is not JSON: {error.msg}", file=str(path), line=error.lineno) from None
    if not isinstance(plain, Mapping) or "cases" not in plain or "format" not in plain:
        raise InputError(
            "this is no benchmark", file=str(path), allowed="a file that `unitrain bench --json FILE` wrote"
        )
    if plain["format"] != FORMAT:
        raise InputError(
            "the benchmark has another format", file=str(path), found=str(plain["format"]), allowed=str(FORMAT)
        )
    try:
        for case in plain["cases"]:
            assert {"part", "name", "device", "band", "rows"} <= case.keys()
            for row in case["rows"]:
                assert {"contender", "seconds", "claim"} <= row.keys()
    except (AssertionError, AttributeError, TypeError):
        raise InputError("the benchmark is damaged: a case or row lacks a field", file=str(path)) from None
    return dict(plain)
