"""The display of a study, on standard error: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from unitrain.cli.live_bar import LiveBar
from unitrain.cli.progress import PlainLines
from unitrain.study.progress import Progress
from unitrain.train.events import Observer


def make_bar() -> Progress:
    """Choose the display."""
    return StudyBar() if sys.stderr.isatty() else StudyLines()


class StudyBar(Progress):
    """A bar for the stage, and one below it for what takes long within: calibration, training."""

    def __init__(self) -> None:
        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[values]}", markup=False),
            TimeRemainingColumn(compact=True),
            console=Console(stderr=True, highlight=False),
            transient=True,
        )
        self._bars.start()
        self._stage: TaskID | None = None
        self._part: TaskID | None = None
        self._training: LiveBar | None = None

    def begin(self, stage: str, total: int) -> None:
        """Show a new bar."""
        self._end_parts()
        if self._stage is not None:
            self._bars.remove_task(self._stage)
        self._stage = self._bars.add_task(stage, total=total, values="")

    def tell(self, message: str) -> None:
        """Say it behind the bar."""
        if self._stage is not None:
            self._bars.update(self._stage, values=message)

    def step(self) -> None:
        """Move the bar."""
        self._end_parts()
        if self._stage is not None:
            self._bars.advance(self._stage)

    def at(self, done: int) -> None:
        """Move the bar to a place."""
        if self._stage is not None:
            self._bars.update(self._stage, completed=done)

    def within(self, what: str, total: int) -> Callable[[int], None]:
        """Show a second bar, until it is full or the step ends."""
        self._end_parts()
        part = self._part = self._bars.add_task(f"  {what}", total=total, values="")

        def told(done: int) -> None:
            if part == self._part:
                self._bars.update(part, completed=done)
                if done >= total:
                    self._end_parts()

        return told

    def training(self) -> Observer:
        """Show the bar that ``unitrain fit`` has."""
        self._end_parts()
        self._training = LiveBar(sys.stderr, self._bars)
        return self._training

    def _end_parts(self) -> None:
        """Take the second bar away; what failed has left it there."""
        if self._part is not None:
            self._bars.remove_task(self._part)
            self._part = None
        if self._training is not None:
            self._training.close()
            self._training = None

    def close(self) -> None:
        """Take the bars away."""
        self._bars.stop()


class StudyLines(Progress):
    """One line for each thing that is begun, and for each epoch: for files, pipes and logs."""

    def __init__(self) -> None:
        self._total = self._done = 0

    def begin(self, stage: str, total: int) -> None:
        """Print the stage."""
        self._total, self._done = total, 0
        _print(f"{stage}, {total} in all")

    def tell(self, message: str) -> None:
        """Print it."""
        _print(f"  {self._done + 1}/{self._total}  {message}")

    def step(self) -> None:
        """Count it."""
        self._done += 1

    def within(self, what: str, total: int) -> Callable[[int], None]:
        """Print that it begins."""
        _print(f"  {what}, {total} in all")
        return super().within(what, total)

    def training(self) -> Observer:
        """Print a line an epoch."""
        return PlainLines(sys.stderr)


def _print(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
