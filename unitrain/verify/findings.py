"""What verification finds: one verdict a tensor, the causes behind the failures, and the report that holds both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from unitrain.verify.verdict import Verdict

Level = Literal["forward", "backward", "step", "trajectory", "transfer"]
LEVELS: tuple[Level, ...] = ("forward", "backward", "step", "trajectory", "transfer")

# Names of parts that are no layers.
OPTIMIZER = "optimizer"
LOSS = "loss"
LOSSES = "losses together"
MODEL = "model"


@dataclass(frozen=True)
class TensorName:
    """Names one tensor that every backend is to compute.

    Parameters
    ----------
    level
        At which level of verification it is compared.
    part
        The layer it belongs to by its full name, or ``optimizer``, ``loss of <output>``, ``model``.
    tensor
        What it is: ``output``, ``gradient by kernel``, ``change of conv1.kernel``.
    mode
        ``training`` or ``inference``.
    isolated
        Whether its part was given exactly what the reference was given, so that nothing before it can be the cause.
    growth
        How much more than NumPy's its error may be; see `verdict.sum_growth`.
    """

    level: Level
    part: str
    tensor: str
    mode: str
    isolated: bool = False
    growth: float = 1.0


@dataclass(frozen=True)
class Finding:
    """The verdict on one tensor of one backend.

    Parameters
    ----------
    backend
        Who computed it.
    name
        Which tensor.
    verdict
        The verdict.
    excuse
        Why a failure does not count: ``flip in relu1``, where rounding moved a value over a kink.
    """

    backend: str
    name: TensorName
    verdict: Verdict
    excuse: str = ""

    @property
    def failed(self) -> bool:
        """Whether it counts as a failure."""
        return not self.verdict.passed and not self.excuse


def raised(backend: str, name: TensorName, error: Exception) -> Finding:
    """Return the finding that a backend raised an error where it was to compute."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return Finding(backend, name, Verdict(False, float("inf"), float("inf"), 1.0, text))


@dataclass(frozen=True)
class Cause:
    """Why a backend failed, as far as it can be told.

    Parameters
    ----------
    backend
        The backend that computes something else; ``numpy`` when all others agree against it.
    part
        The first part that fails by itself: a layer, ``optimizer``, ``loss of <output>``; ``model`` when every
        layer by itself is right.
    kind
        Type of the layer, loss or optimizer.
    tensors
        What fails there, with the worst ratio first.
    diagnosis
        The known difference that explains it, or nothing.
    """

    backend: str
    part: str
    kind: str
    level: Level
    tensors: tuple[str, ...]
    worst: float
    diagnosis: str = ""

    def __str__(self) -> str:
        what = self.part if self.part.startswith((OPTIMIZER, LOSS, MODEL)) else f"{self.kind} at layer '{self.part}'"
        return f"{self.backend} {what}: {self.diagnosis or 'matches no known difference'}"


@dataclass(frozen=True)
class Trajectory:
    """How far a backend's training strays from the reference's.

    Parameters
    ----------
    backend
        Who trained; ``numpy32`` and ``envelope`` are the yardsticks.
    steps
        Updates after which the distance was taken.
    distance
        Root mean square distance of all trained weights from the reference's, over what the reference has moved.
    losses
        Training loss after each step, for those who have one.
    outcome
        ``PASS``, ``FAIL``, or ``PASS until a flip at step 31 in relu1``; nothing for yardsticks.
    flips
        Kinks on the other side than the reference's, counted after each of ``steps``.
    """

    backend: str
    steps: tuple[int, ...]
    distance: tuple[float, ...]
    losses: tuple[float, ...]
    outcome: str = ""
    flips: tuple[int, ...] = ()


@dataclass
class Report:
    """All that one verification found.

    Parameters
    ----------
    subject
        Name of the model or recipe.
    backends, precision, levels, seed
        What was verified.
    data
        A line that says what the batches are.
    findings
        Every verdict.
    causes
        The causes of the failures.
    trajectories
        One for each backend that trains, and the yardsticks.
    layers
        Layer name to type, in order.
    notes
        What was left out, and why.
    seconds
        Time that each level took.
    versions
        Of the packages used.
    devices
        Backend to where it ran.
    """

    subject: str
    backends: tuple[str, ...]
    precision: str
    levels: tuple[Level, ...]
    seed: int
    data: str = ""
    findings: list[Finding] = field(default_factory=list)
    causes: list[Cause] = field(default_factory=list)
    trajectories: list[Trajectory] = field(default_factory=list)
    layers: Mapping[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    devices: Mapping[str, str] = field(default_factory=dict)

    @property
    def failures(self) -> list[Finding]:
        """The findings that count as failures."""
        return [finding for finding in self.findings if finding.failed]

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return not self.failures and all(not item.outcome.startswith("FAIL") for item in self.trajectories)

    def to_plain(self) -> dict[str, Any]:
        """Return everything as plain values for JSON; ratios that are not finite become null."""
        plain = asdict(self)
        plain["findings"] = [_plain_finding(finding) for finding in self.findings]
        for entry, cause in zip(plain["causes"], self.causes, strict=True):
            entry["text"] = str(cause)
        return {"passed": self.passed, **_finite(plain)}


def _plain_finding(finding: Finding) -> dict[str, Any]:
    verdict = finding.verdict
    return {
        "backend": finding.backend,
        "level": finding.name.level,
        "part": finding.name.part,
        "tensor": finding.name.tensor,
        "mode": finding.name.mode,
        "isolated": finding.name.isolated,
        "passed": verdict.passed,
        "ratio": verdict.ratio,
        "max_ratio": verdict.max_ratio,
        "bound": verdict.bound,
        "reason": verdict.reason,
        "excuse": finding.excuse,
    }


def _finite(value: Any) -> Any:
    """Replace numbers that JSON has no word for."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not (abs(value) < float("inf")):
        return None
    return value
