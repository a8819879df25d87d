"""Cuts a run into blocks of steps that a program takes by itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from unitrain.backends.contract import Plan
from unitrain.spec.training import TrainingSpec
from unitrain.train.keeping import Keeping
from unitrain.train.loss_scale import LossScale
from unitrain.train.plan import Batches
from unitrain.train.pruner import Pruner
from unitrain.train.schedules import Schedule
from unitrain.train.state import TrainingState
from unitrain.train.update import Update


@dataclass
class Blocks:
    """Plans blocks; arguments as of `Trainer`, and what keeps its checkpoints."""

    batches: Batches
    schedule: Schedule
    update: Update
    spec: TrainingSpec
    pruner: Pruner | None
    keeping: Keeping
    state: TrainingState

    @property
    def scale(self) -> LossScale | None:
        """The loss scale, where there is one."""
        return self.state.loss_scale if self.spec.precision == "mixed_float16" else None

    def end(self, first: int, length: int) -> int:
        """Return where a block ends that starts at batch ``first`` of the epoch and aims at ``length`` batches."""
        return self._within_limits(first, self.batches.block_end(first, length))

    def plan(self, order: npt.NDArray[np.int32], first: int, end: int) -> tuple[Plan, npt.NDArray[np.float64]]:
        """Return the plan of batches ``first`` to ``end`` of an epoch, and the learning rates of their updates."""
        groups = [self.batches.group(batch) for batch in range(first, end)]
        apply = np.array([last for _, last in groups])
        scale = np.array([factor for factor, _ in groups])
        # Number of the update that each batch contributes to, counted from the first of this block.
        number = np.cumsum(apply) - apply
        count = int(number[-1]) + 1
        rates = self.schedule.learning_rates(self.state.updates, count)
        coefficients = self.update.coefficients(rates, self.state.updates)[number]
        rows = self.batches.rows(order, first, end)
        loss_scale = None if self.scale is None else self.scale.value
        return Plan(rows, coefficients, scale, apply, self.state.batches, loss_scale), rates

    def _within_limits(self, first: int, end: int) -> int:
        """Shorten a block: the limit of updates, a change of the loss scale, and pruning lie at the edge of one."""
        first_group = first - first % self.batches.accumulate
        limits = [] if self.spec.max_steps is None else [self.spec.max_steps - self.state.updates]
        limits += [] if self.scale is None else [self.scale.room]
        room = None if self.pruner is None else self.pruner.room(self.state.updates)
        limits += [] if room is None else [room]
        ends = [first_group + left * self.batches.accumulate for left in limits]
        due = self.keeping.room(self.state)
        if due is not None:
            # Up to the update with which the next checkpoint is due.
            ends.append(-(-(first + due) // self.batches.accumulate) * self.batches.accumulate)
        return max(first + 1, min([end, *ends]))
