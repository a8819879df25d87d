"""The display of a study on a terminal: a bar for each stage, on standard error."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from unitrain.study.progress import Progress


class StudyBar(Progress):
    """Shows a bar where standard error is a terminal, and nothing elsewhere."""

    def __init__(self) -> None:
        self._bars: Bars | None = None
        self._task: TaskID | None = None
        if sys.stderr.isatty():
            self._bars = Bars(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[about]}", markup=False),
                TimeRemainingColumn(compact=True),
                console=Console(stderr=True, highlight=False),
                transient=True,
            )
            self._bars.start()

    def begin(self, stage: str, total: int) -> None:
        """Show a new bar."""
        if self._bars is not None:
            if self._task is not None:
                self._bars.remove_task(self._task)
            self._task = self._bars.add_task(stage, total=total, about="")

    def tell(self, message: str) -> None:
        """Say it behind the bar."""
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, about=message)

    def step(self) -> None:
        """Move the bar."""
        if self._bars is not None and self._task is not None:
            self._bars.advance(self._task)

    def at(self, done: int) -> None:
        """Move the bar to a place."""
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, completed=done)

    def close(self) -> None:
        """Take the bar away."""
        if self._bars is not None:
            self._bars.stop()
