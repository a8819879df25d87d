"""Pruning while a model trains: at which updates weights become zero, and how many."""

from __future__ import annotations

from dataclasses import dataclass

from unitrain.backends.contract import Program
from unitrain.graph.passes.magnitude import magnitude_masks
from unitrain.spec.errors import InputError
from unitrain.spec.pruning import PruningSpec
from unitrain.train.update import AVERAGE


@dataclass(frozen=True)
class Pruner:
    """Prunes a program's weights at the updates that a recipe says.

    It remembers nothing: what is zero stays zero in `Update`, and is smallest when the next weights are chosen. So a
    run that goes on from a checkpoint is the same run.

    Parameters
    ----------
    spec
        The recipe's.
    updates
        Length of the run.
    """

    spec: PruningSpec
    updates: int

    def __post_init__(self) -> None:
        """Raise `InputError` where the run ends before weights are as few as they are to be."""
        if self.end > self.updates:
            raise InputError(
                "the run ends before its last weights become zero",
                field=("pruning", "end" if self.spec.end is not None else "begin"),
                found=str(self.end),
                allowed=f"at most {self.updates}, the updates of the run",
            )

    @property
    def end(self) -> int:
        """The update after which no more weights go."""
        if self.spec.sparsity is None:
            return self.spec.begin if self.spec.pattern is not None else 0
        return max(self.spec.begin, self.updates * 3 // 4) if self.spec.end is None else self.spec.end

    def sparsity(self, update: int) -> float:
        """Return the fraction of zeros after an update: s (1 - (1 - t)^3), t from 0 at ``begin`` to 1 at ``end``."""
        if self.spec.sparsity is None or update < self.spec.begin:
            return 0.0
        length = self.end - self.spec.begin
        passed = 1.0 if length == 0 else min((update - self.spec.begin) / length, 1.0)
        return self.spec.sparsity * (1.0 - (1.0 - passed) ** 3)

    def room(self, update: int) -> int | None:
        """Return how many updates there are before weights go; None where none go any more."""
        if update >= self.end:
            return None
        if update < self.spec.begin:
            return self.spec.begin - update
        return min(self.spec.every - (update - self.spec.begin) % self.spec.every, self.end - update)

    def is_due(self, update: int) -> bool:
        """Tell whether weights go after an update."""
        if (self.spec.sparsity is None and self.spec.pattern is None) or not self.spec.begin <= update <= self.end:
            return False
        return update == self.end or (update - self.spec.begin) % self.spec.every == 0

    def prune(self, program: Program, update: int) -> None:
        """Let weights become zero, as many as there are to be after an update, and their moving averages."""
        weights, slots = program.weights(), program.slots()
        masks, _ = magnitude_masks(program.graph, weights, self.sparsity(update), self.spec.scope, self.spec.pattern)
        program.load_weights({**weights, **{name: weights[name] * mask for name, mask in masks.items()}})
        if AVERAGE in slots:
            averages = slots[AVERAGE]
            averages = {**averages, **{name: averages[name] * mask for name, mask in masks.items()}}
            program.load_slots({**slots, AVERAGE: averages})
