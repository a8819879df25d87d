"""The display of a run on a terminal."""

from __future__ import annotations

from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from unitrain.cli.run_lines import show_end, show_epoch, show_rate, show_start, show_values
from unitrain.train.events import BlockDone, EpochDone, Observer, RunEnd, RunStart


class LiveBar(Observer):
    """A bar with loss, metrics, learning rate, speed and time left; finished epochs stay as lines.

    Parameters
    ----------
    output
        The terminal.
    shared
        Bars that are shown already, to which this one is added; it has a field ``values``.
    """

    def __init__(self, output: TextIO, shared: Progress | None = None) -> None:
        self.console = Console(file=output, highlight=False) if shared is None else shared.console
        self.epochs = 0
        self.shared = shared is not None
        self.bar = shared or Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[values]}"),
            TimeRemainingColumn(compact=True),
            console=self.console,
            transient=True,
            refresh_per_second=8,
        )
        self.task: TaskID | None = None
        self.batches = 0

    def on_start(self, event: RunStart) -> None:
        """Print the run and show the bar; its length is the whole run, so that time left is the run's."""
        self.epochs, self.batches = event.epochs, event.batches_per_epoch
        self.console.print(show_start(event), markup=False)
        self.bar.start()
        self.task = self.bar.add_task(
            "starting",
            total=self.epochs * self.batches,
            completed=event.first_epoch * self.batches,
            values="",
        )

    def on_block(self, event: BlockDone) -> None:
        """Move the bar."""
        if self.task is None:
            return
        values = f"{show_values(event.values)}  lr {event.learning_rate:.3g}  {show_rate(event.samples_per_second)}/s"
        self.bar.update(
            self.task,
            completed=(event.epoch - 1) * self.batches + event.batch,
            description=f"epoch {event.epoch}/{self.epochs}",
            values=values,
        )

    def on_epoch(self, event: EpochDone) -> None:
        """Print the finished epoch above the bar."""
        self.bar.console.print(show_epoch(event, self.epochs), markup=False, soft_wrap=True)

    def on_end(self, event: RunEnd) -> None:
        """Take the bar away and print the end."""
        self.close()
        self.console.print(show_end(event), markup=False, soft_wrap=True)

    def close(self) -> None:
        """Give the screen back."""
        if not self.shared:
            self.bar.stop()
        elif self.task is not None:
            self.bar.remove_task(self.task)
            self.task = None
