"""The line that says what is being done, on a terminal and nowhere else."""

from __future__ import annotations

import re
import sys
from types import TracebackType

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

_WORD_STARTS = re.compile(r"(?<=[a-z])(?=[A-Z])")


class Status:
    """A spinner, what is being done, and for how long; on standard error, so that output can go into a file.

    Attributes
    ----------
    about
        Whose turn it is; stands before what is being done.
    """

    def __init__(self) -> None:
        self.about = ""
        self._line: Progress | None = None

    def __enter__(self) -> Status:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.pause()

    def tell(self, message: str) -> None:
        """Say what is being done. ``WholeModel on torch`` is written ``whole model on torch``."""
        if not sys.stderr.isatty():
            return
        if self._line is None:
            console = Console(stderr=True, highlight=False)
            columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
            self._line = Progress(*columns, console=console, transient=True)
            self._line.add_task("")
            self._line.start()
        words = _WORD_STARTS.sub(" ", message)
        shown = words.lower() if words != message else message
        self._line.update(self._line.task_ids[0], description=f"{self.about}: {shown}" if self.about else shown)

    def pause(self) -> None:
        """Take the line away until something is told again."""
        if self._line is not None:
            self._line.stop()
            self._line = None
