"""Trackers that a recipe may ask for: TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unitrain.spec.errors import InputError
from unitrain.spec.recipe import Recipe
from unitrain.train.events import EpochDone, Observer
from unitrain.train.run_folder import RunFolder


class TensorBoard(Observer):
    """Writes scalars for TensorBoard, one point an epoch, into ``tensorboard/`` of the run folder."""

    def __init__(self, folder: RunFolder) -> None:
        try:
            from tensorboard.compat.proto.event_pb2 import Event
            from tensorboard.compat.proto.summary_pb2 import Summary
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ModuleNotFoundError as error:
            raise InputError(
                f"tracking with tensorboard needs {error.name}, which is not installed",
                field=("tracking",),
                hint="pip install 'unitrain[tracking]'",
            ) from None
        self._event, self._summary = Event, Summary
        self._writer = EventFileWriter(str(folder.path / "tensorboard"))

    def on_epoch(self, event: EpochDone) -> None:
        """Write the epoch's values and learning rate."""
        self._write("training", event.training, event)
        self._write("validation", event.validation, event)
        self._write("optimizer", {"learning_rate": event.learning_rate}, event)
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()

    def _write(self, group: str, values: Mapping[str, Any], event: EpochDone) -> None:
        import time

        for label, value in values.items():
            if not isinstance(value, (int, float)):
                continue
            item = self._summary.Value(tag=f"{group}/{label}", simple_value=float(value))
            self._writer.add_event(
                self._event(wall_time=time.time(), step=event.epoch, summary=self._summary(value=[item]))
            )


def trackers(recipe: Recipe, folder: RunFolder) -> list[Observer]:
    """Return the trackers that a recipe asks for."""
    return [TensorBoard(folder) for name in recipe.tracking if name == "tensorboard"]
