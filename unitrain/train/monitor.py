"""Which weights are the best so far, and when patience has run out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unitrain.spec.training import TrainingSpec
from unitrain.train.metrics import HostMetric
from unitrain.train.state import TrainingState


@dataclass
class Monitor:
    """Compares what is measured on the validation set with what was measured before.

    Parameters
    ----------
    spec
        Says what is monitored: ``keep_best`` and ``early_stopping``.
    metrics
        Label to metric: whether larger is better.
    state
        Remembers the best values.
    """

    spec: TrainingSpec
    metrics: Mapping[str, HostMetric]
    state: TrainingState

    def is_best(self, epoch: int, validation: Mapping[str, Any]) -> bool:
        """Remember the monitored value if it is the best so far; return whether it is."""
        monitor = self.spec.keep_best
        if monitor is None or not validation or not self._is_better(monitor, validation, self.state.best_value):
            return False
        self.state.best_value = float(validation[monitor])
        self.state.best_epoch, self.state.best_step = epoch, self.state.batches
        return True

    def count_patience(self, validation: Mapping[str, Any]) -> None:
        """Count evaluations without improvement."""
        rule = self.spec.early_stopping
        if rule is None or not validation:
            return
        if self._is_better(rule.monitor, validation, self.state.stopping_best, rule.minimum_change):
            self.state.stopping_best = float(validation[rule.monitor])
            self.state.bad_evaluations = 0
        else:
            self.state.bad_evaluations += 1

    @property
    def lost_patience(self) -> str:
        """Why the run stops early; empty while it goes on."""
        rule = self.spec.early_stopping
        if rule is None or self.state.bad_evaluations <= rule.patience:
            return ""
        return f"validation {rule.monitor} has not improved for {self.state.bad_evaluations} evaluations"

    def _is_better(
        self, monitor: str, validation: Mapping[str, Any], best: float | None, minimum_change: float = 0.0
    ) -> bool:
        value = float(validation[monitor])
        if best is None:
            return not math.isnan(value)
        metric = self.metrics.get(monitor)
        sign = 1.0 if metric is not None and metric.higher_is_better else -1.0
        return sign * value > sign * best + minimum_change
