"""What a study shows while it works: bars on a terminal, lines elsewhere."""

from __future__ import annotations

import io
import re
import sys

from unitrain.cli.study_bar import StudyBar, StudyLines, make_bar
from unitrain.train.events import BlockDone, EpochDone, RunEnd, RunStart

START = RunStart("small", "numpy", "cpu", 2, 10, 640, 64, 99)
BLOCK = BlockDone(1, 4, {"loss": 0.5}, 0.01, 2000.0)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(terminal: io.StringIO) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue())


def test_a_terminal_has_a_bar_for_the_stage_and_one_for_what_takes_long(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    for name, value in {"TERM": "xterm", "COLUMNS": "120"}.items():
        monkeypatch.setenv(name, value)
    for name in ("NO_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    bar = make_bar()
    assert isinstance(bar, StudyBar)
    bar.begin("making variants", 3)
    bar.tell("int8")
    told = bar.within("calibrating, minmax", 8)
    told(5)
    bar._bars.refresh()
    assert re.search(r"making variants\s.*0/3\s+int8", shown(terminal))
    assert re.search(r"  calibrating, minmax\s.*5/8", shown(terminal))
    told(8)
    assert len(bar._bars.tasks) == 1
    bar.step()
    observer = bar.training()
    observer.on_start(START)
    observer.on_block(BLOCK)
    bar._bars.refresh()
    # Four of twenty batches.
    assert re.search(r"epoch 1/2\s.*4/20\s+loss 0.5000  lr 0.01  2,000/s", shown(terminal))
    observer.on_epoch(EpochDone(1, 10, {"loss": 0.5}, {}, 0.01, 1.0, 2000.0, False))
    assert "epoch 1/2  |  training: loss 0.5000" in shown(terminal)
    # A training that fails tells no end: its bar goes with the step.
    assert len(bar._bars.tasks) == 2
    bar.step()
    assert len(bar._bars.tasks) == 1
    told(1)  # of a part that is over
    bar.close()


def test_elsewhere_there_are_lines(monkeypatch):
    output = io.StringIO()
    monkeypatch.setattr(sys, "stderr", output)
    bar = make_bar()
    assert isinstance(bar, StudyLines)
    bar.begin("making variants", 2)
    bar.tell("int8")
    bar.within("calibrating, minmax", 8)(3)
    bar.step()
    bar.tell("qat")
    observer = bar.training()
    observer.on_start(START)
    observer.on_block(BLOCK)
    observer.on_end(RunEnd("finished", "trained for 2 epochs", 2, 20, 1.0, None, {}, {}))
    assert output.getvalue().splitlines() == [
        "making variants, 2 in all",
        "  1/2  int8",
        "  calibrating, minmax, 8 in all",
        "  2/2  qat",
        "small: 99 parameters on numpy (cpu)",
        "trained for 2 epochs (1.0 s, 20 updates)",
    ]
