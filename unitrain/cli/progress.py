"""How a run shows itself: a live bar on a terminal, plain lines elsewhere, JSON lines for programs."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Any, TextIO

from unitrain.cli.run_lines import show_end, show_epoch, show_start
from unitrain.train.events import EpochDone, Observer, RunEnd, RunStart
from unitrain.train.run_folder import json_values


def make_display(quiet: bool, as_json: bool, stream: TextIO | None = None) -> Observer:
    """Choose the display: ``--json``, ``--quiet``, a live bar on a terminal, else plain lines."""
    output = stream or sys.stdout
    if as_json:
        return JsonLines(output)
    if quiet:
        return Observer()
    if output.isatty():
        from unitrain.cli.live_bar import LiveBar

        return LiveBar(output)
    return PlainLines(output)


class PlainLines(Observer):
    """One line an epoch: for files, pipes and logs."""

    def __init__(self, output: TextIO) -> None:
        self.output = output
        self.epochs = 0

    def on_start(self, event: RunStart) -> None:
        """Print the run."""
        self.epochs = event.epochs
        self._print(show_start(event))

    def on_epoch(self, event: EpochDone) -> None:
        """Print the epoch."""
        self._print(show_epoch(event, self.epochs))

    def on_end(self, event: RunEnd) -> None:
        """Print the end."""
        self._print(show_end(event))

    def _print(self, text: str) -> None:
        print(text, file=self.output, flush=True)


class JsonLines(Observer):
    """One JSON object a line: ``start``, each ``epoch``, ``end``."""

    def __init__(self, output: TextIO) -> None:
        self.output = output

    def on_start(self, event: RunStart) -> None:
        """Write the run."""
        self._write("start", event)

    def on_epoch(self, event: EpochDone) -> None:
        """Write the epoch."""
        self._write("epoch", event)

    def on_end(self, event: RunEnd) -> None:
        """Write the end."""
        self._write("end", event)

    def _write(self, kind: str, event: Any) -> None:
        line = json.dumps(json_values({"event": kind, **asdict(event)}), allow_nan=False)
        print(line, file=self.output, flush=True)
