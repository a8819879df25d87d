"""When a run keeps a checkpoint of where it stands."""

from __future__ import annotations

from copy import deepcopy
from typing import Protocol

from unitrain.backends.contract import Program
from unitrain.spans import span
from unitrain.spec.training import TrainingSpec
from unitrain.train.checkpoint import Checkpoint
from unitrain.train.schedules import Schedule
from unitrain.train.state import TrainingState


class Keeper(Protocol):
    """Keeps checkpoints."""

    def keep(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint; it may be written while training goes on."""
        ...

    def close(self) -> None:
        """Wait until all is written."""
        ...


class Keeping:
    """Keeps checkpoints as often as a recipe wants them.

    Parameters
    ----------
    spec
        Says how often: ``checkpoint_steps``, ``checkpoint_minutes``.
    keeper
        None keeps none.
    state
        Where the run stands when it begins, of which there is a checkpoint unless it begins anew.
    """

    def __init__(self, spec: TrainingSpec, keeper: Keeper | None, state: TrainingState) -> None:
        self.spec, self.keeper = spec, keeper
        self.batches, self.seconds = state.batches, state.seconds

    def is_due(self, state: TrainingState) -> bool:
        """Tell whether the last checkpoint is old: in batches or in minutes."""
        steps, minutes = self.spec.checkpoint_steps, self.spec.checkpoint_minutes
        return (steps is not None and state.batches - self.batches >= steps) or (
            minutes is not None and state.seconds - self.seconds >= 60 * minutes
        )

    def room(self, state: TrainingState) -> int | None:
        """Return after how many batches, one at least, the next checkpoint is due; None where none is by batches."""
        steps = self.spec.checkpoint_steps
        return None if steps is None else max(1, self.batches + steps - state.batches)

    def keep(self, program: Program, schedule: Schedule, state: TrainingState) -> None:
        """Keep a checkpoint, unless that is done; what training changes later is copied."""
        if self.batches == state.batches:
            return
        self.batches, self.seconds = state.batches, state.seconds
        if self.keeper is not None:
            with span("checkpoint"):
                state.schedule = schedule.state()
                self.keeper.keep(Checkpoint(program.weights(), program.slots(), deepcopy(state)))
