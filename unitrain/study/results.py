"""What a study found: rows of variants, what they were measured on, and what is recommended; plain values for files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from unitrain.study.quality import Quality
from unitrain.timing import Interval
from unitrain.train.run_folder import json_values

SINGLE, OFFLINE = "single stream", "offline"
# The float model, which all others are compared with.
BASELINE = "fp32"


@dataclass(frozen=True)
class Latency:
    """How long a call takes in one scenario.

    Parameters
    ----------
    batch
        Samples a call.
    p50, p90, p99
        Quantiles of the calls, seconds; None where there were too few calls to know it.
    calls
        How many calls those are of.
    ratio
        To the baseline: median of the rounds' ratios with its interval; None for the baseline itself.
    claim
        ``faster``, ``slower``, or ``same`` inside the A/A band.
    """

    batch: int
    p50: float
    p90: float | None
    p99: float | None
    calls: int
    ratio: Interval | None
    claim: str


@dataclass(frozen=True)
class Size:
    """How large a variant is, as `backends.onnx.anatomy.Sizes`, with its multiply-accumulates a sample."""

    file: int
    compressed: int
    weights: int
    numbers: int
    non_zeros: int
    macs: int | None


@dataclass
class Row:
    """One variant.

    Parameters
    ----------
    name, what
        As `variants.VARIANTS` has it.
    file, sha256
        Its ONNX file beside the report, and what that hashes to; nothing for other runtimes.
    failure
        Why it is no candidate; nothing where all gates held.
    gates
        Gate to ``ok`` or to what was found.
    notes
        What was done to make it, and what its user should know.
    coverage
        Products in integers of all products, in the graph that onnxruntime executes: ``21/21``.
    load_seconds, peak_memory
        Of loading in a fresh process, and of one call there: bytes beyond what the process had.
    cpu_seconds
        Processor seconds of one inference of one sample: a proxy for energy.
    saturated
        Share of the predictions that change where sums of two products saturate in 16 bits; None where not looked at.
    """

    name: str
    what: str
    file: str = ""
    sha256: str = ""
    failure: str = ""
    gates: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    selection: Quality | None = None
    test: Quality | None = None
    size: Size | None = None
    coverage: str = ""
    latency: dict[str, Latency] = field(default_factory=dict)
    load_seconds: float | None = None
    peak_memory: int | None = None
    cpu_seconds: float | None = None
    saturated: float | None = None


@dataclass(frozen=True)
class Sensitivity:
    """What quantising one operator alone does: its name, kind, and the signal to noise that is left, in dB."""

    node: str
    kind: str
    signal_to_noise: float


@dataclass
class Study:
    """A whole study.

    Parameters
    ----------
    name, source
        What was studied.
    kind
        ``accuracy`` where there are labels, ``fidelity`` where the float model is the measure, ``speed only`` where
        inputs are random.
    measure
        What quality is measured in.
    options
        The settings, as a recipe's ``study:`` has them.
    bands
        Scenario to the factor up to which the A/A twin seemed to differ.
    rounds
        Scenario to the rounds done.
    """

    name: str
    source: str
    kind: str
    measure: str
    options: Mapping[str, Any]
    seed: int
    rows: list[Row]
    splits: Mapping[str, Any]
    sensitivity: list[Sensitivity]
    bands: Mapping[str, float]
    rounds: Mapping[str, int]
    recommended: str
    recommendation: str
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    request: Mapping[str, Any]
    notes: list[str]
    seconds: float
    command: str = ""

    def row(self, name: str) -> Row:
        """Return the row called ``name``. Raises `KeyError`."""
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)

    def to_plain(self) -> dict[str, Any]:
        """Return plain values for JSON; infinite numbers become null."""
        plain: dict[str, Any] = json_values(asdict(self))
        return plain
