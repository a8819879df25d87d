"""Where a run stands: everything a resumed run needs beside weights and optimizer slots."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from unitrain.train.loss_scale import LossScale


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

    epoch: int = 0
    batch: int = 0
    batches: int = 0
    updates: int = 0
    seconds: float = 0.0
    loss_sum: float = 0.0
    samples: int = 0
    metric_terms: dict[str, tuple[float, float]] = field(default_factory=dict)
    best_value: float | None = None
    best_epoch: int | None = None
    best_step: int | None = None
    stopping_best: float | None = None
    bad_evaluations: int = 0
    schedule: dict[str, Any] = field(default_factory=dict)
    loss_scale: LossScale | None = None

    def to_plain(self) -> dict[str, Any]:
        """Return the state as JSON values."""
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> TrainingState:
        """Rebuild the state from `to_plain`."""
        terms = {label: (float(a), float(b)) for label, (a, b) in plain["metric_terms"].items()}
        scale = plain.get("loss_scale")
        return cls(**{**plain, "metric_terms": terms, "loss_scale": scale and LossScale(**scale)})

    def begin_epoch(self) -> None:
        """Forget the sums of the epoch that has ended."""
        self.batch, self.loss_sum, self.samples = 0, 0.0, 0
        self.metric_terms = {}
