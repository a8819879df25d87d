"""Where a run stands: everything a resumed run needs beside weights and optimizer slots."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, FiniteFloat, TypeAdapter

from unitrain.train.loss_scale import LossScale
from unitrain.train.metrics import HostMetric

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

    def add(
        self,
        losses: npt.NDArray[np.float64],
        metric_terms: Mapping[str, npt.NDArray[np.float64]],
        batch_size: int,
        updates: int,
    ) -> None:
        """Count batches with their mean losses ``[batch]`` and each metric's terms ``[batch, 2]``, and updates."""
        self.batch += len(losses)
        self.batches += len(losses)
        self.updates += updates
        self.samples += len(losses) * batch_size
        self.loss_sum = float(_added(self.loss_sum, losses * batch_size))
        for label, terms in metric_terms.items():
            numerator, denominator = _added(self.metric_terms.get(label, (0.0, 0.0)), terms).tolist()
            self.metric_terms[label] = (numerator, denominator)

    def values(self, metrics: Mapping[str, HostMetric]) -> dict[str, float]:
        """Return the mean loss and the metrics, by label, of the epoch under way."""
        values = {"loss": self.loss_sum / max(self.samples, 1)}
        for label, (numerator, denominator) in self.metric_terms.items():
            values[label] = metrics[label].finish(numerator / denominator if denominator else math.nan)
        return values


def _added(before: npt.ArrayLike, terms: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Add to a sum what came after it, step by step: the last bit does not depend on how steps are cut into blocks."""
    start = np.asarray(before, np.float64)[np.newaxis]
    return np.asarray(np.add.accumulate(np.concatenate([start, terms]), axis=0)[-1])
