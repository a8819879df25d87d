"""Training within a study, told to its display."""

from __future__ import annotations

from unitrain.study.progress import Progress
from unitrain.train.events import BlockDone, Observer, RunStart


class Teller(Observer):
    """Tells a study's display how far training is."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._epochs = 0

    def on_start(self, event: RunStart) -> None:
        """Keep the number of epochs."""
        self._epochs = event.epochs

    def on_block(self, event: BlockDone) -> None:
        """Say the epoch."""
        self._progress.tell(f"training, epoch {event.epoch} of {self._epochs}")
