"""What a run tells its observers: progress displays, logs, trackers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Values = Mapping[str, Any]


@dataclass(frozen=True)
class RunStart:
    """Training begins, or goes on from a checkpoint.

    Parameters
    ----------
    notes
        What a user should know of the data: sizes, leaks, constant columns; and settings that have no effect here.
    precision
        `TrainingSpec.precision`.
    """

    name: str
    backend: str
    device: str
    epochs: int
    batches_per_epoch: int
    training_samples: int
    validation_samples: int
    parameters: int
    notes: tuple[str, ...] = ()
    first_epoch: int = 0
    precision: str = "float32"


@dataclass(frozen=True)
class BlockDone:
    """A block of batches has been trained on.

    Parameters
    ----------
    epoch
        Number of the epoch, from 1.
    batch
        Batches of the epoch done.
    values
        Mean loss and metrics of the epoch so far.
    learning_rate
        Of the last update.
    samples_per_second
        Over this block.
    """

    epoch: int
    batch: int
    values: Values
    learning_rate: float
    samples_per_second: float


@dataclass(frozen=True)
class EpochDone:
    """An epoch has ended and validation has been evaluated.

    Parameters
    ----------
    training, validation
        Loss and metrics; training values are means over the epoch while the weights moved.
    best
        Whether the monitored value is the best so far.
    """

    epoch: int
    updates: int
    training: Values
    validation: Values
    learning_rate: float
    seconds: float
    samples_per_second: float
    best: bool


@dataclass(frozen=True)
class RunEnd:
    """Training has ended.

    Parameters
    ----------
    reason
        ``finished``, ``early stopping``, ``step limit``, ``time limit``, ``interrupted`` (Ctrl-C),
        ``terminated`` (SIGTERM) or ``not finite``.
    message
        A sentence for the user, with what to do next where there is something.
    best_epoch
        Epoch of the kept weights, or None when the last ones are kept.
    validation, test
        What was measured with the kept weights.
    baseline
        Part -> the same of the seasonal naive forecast, for a series.
    skipped, loss_scale
        Updates that were skipped because scaled gradients overflowed, and the last scale; of training in
        ``mixed_float16``.
    """

    reason: str
    message: str
    epoch: int
    updates: int
    seconds: float
    best_epoch: int | None
    validation: Values = field(default_factory=dict)
    test: Values = field(default_factory=dict)
    baseline: Mapping[str, Values] = field(default_factory=dict)
    skipped: int = 0
    loss_scale: float | None = None


class Observer:
    """Sees a run go by; every method does nothing until it is overridden."""

    def on_start(self, event: RunStart) -> None:
        """Training begins."""

    def on_block(self, event: BlockDone) -> None:
        """A block has been trained on: several times a second at most."""

    def on_epoch(self, event: EpochDone) -> None:
        """An epoch has ended."""

    def on_end(self, event: RunEnd) -> None:
        """Training has ended and its results are known; not called when an error ends it."""

    def close(self) -> None:
        """Give back what is held: a screen, a file. Called last, after an error too."""
