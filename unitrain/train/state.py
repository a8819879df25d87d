"""Where a run stands: everything a resumed run needs beside weights and optimizer slots."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

from pydantic import Field, FiniteFloat, TypeAdapter

from unitrain.train.loss_scale import LossScale

# Larger ones no run comes to, and arithmetic in float64 would round.
Count = Annotated[int, Field(ge=0, le=2**53)]


@dataclass
class TrainingState:
    """Counters and memories of a run; plain values only, so that it is written as JSON.

    Parameters
    ----------
    epoch
        Epochs completed.
    batch
        Batches completed of the epoch that is under way.
    batches, updates
        Batches and updates since the start of training; updates that were skipped are not counted.
    seconds
        Training time so far, pauses between resumes left out.
    loss_sum, samples, metric_terms
        Sums over the epoch that is under way: loss times samples, samples, and each metric's two terms.
    best_value, best_epoch, best_step, bad_evaluations
        Best monitored value, its epoch and the batches until then (None before the first evaluation), and evaluations
        since.
    schedule
        The memory of a schedule that reacts to validation.
    loss_scale
        That of a run in ``mixed_float16``, else None.
    """

    epoch: Count = 0
    batch: Count = 0
    batches: Count = 0
    updates: Count = 0
    seconds: FiniteFloat = 0.0
    loss_sum: float = 0.0
    samples: Count = 0
    metric_terms: dict[str, tuple[float, float]] = field(default_factory=dict)
    best_value: float | None = None
    best_epoch: Count | None = None
    best_step: Count | None = None
    stopping_best: float | None = None
    bad_evaluations: Count = 0
    schedule: dict[str, Any] = field(default_factory=dict)
    loss_scale: LossScale | None = None

    def to_plain(self) -> dict[str, Any]:
        """Return the state as JSON values."""
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> TrainingState:
        """Rebuild the state from `to_plain`. Raises `ValueError` where a value cannot be one of a state."""
        return TypeAdapter(cls).validate_python(plain)

    def begin_epoch(self) -> None:
        """Forget the sums of the epoch that has ended."""
        self.batch, self.loss_sum, self.samples = 0, 0.0, 0
        self.metric_terms = {}
