"""A benchmark on the terminal: case by case, then what it was measured on."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from rich.text import Text

from unitrain.report.quantities import bytes_text, number, seconds_text
from unitrain.report.table import make_console

Plain = Mapping[str, Any]

_SIDE = 15
# Name and width of the columns of numbers.
_COLUMNS = {
    "time": 9,
    "±": 7,
    "ratio": 8,
    "": 8,
    "GFLOP/s": 9,
    "GB/s": 7,
    "samples/s": 11,
    "first": 9,
    "memory": 9,
}
_STYLES = {"faster": "green", "slower": "yellow", "same": "dim", "baseline": "dim"}


class BenchTable:
    """Prints cases as they come.

    Parameters
    ----------
    stream
        Where to; standard output by default.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._console = make_console(stream or sys.stdout)
        self._part = ""

    def print_case(self, case: Plain) -> None:
        """Print one case (plain values, as in the JSON), under a head where its part begins."""
        part = f"{case['part']} on {case['device']}"
        if part != self._part:
            self._part = part
            self._say(Text(""))
            self._say(Text(part, "bold"))
            head = "".join(name.rjust(width) for name, width in _COLUMNS.items())
            self._say(Text("side".ljust(_SIDE + 2) + head, "dim"))
        about = f"  {case['about']}"
        if case["band"] is not None:
            about += f"; {case['rounds']} rounds, A/A twin within {case['band']:.2f}"
        self._say(Text.assemble((case["name"], "bold"), (about, "dim")))
        for row in case["rows"]:
            self._print_row(case, row)

    def _print_row(self, case: Plain, row: Plain) -> None:
        name = row["contender"].ljust(_SIDE)
        if row["failure"]:
            self._say(Text.assemble("  ", (name, ""), ("  ", ""), (row["failure"], "red")))
            return
        cells = row_cells(case, row)
        line = Text(f"  {name}")
        for column, width in _COLUMNS.items():
            style = _STYLES.get(row["claim"], "") if column in ("ratio", "") else ""
            line.append(cells[column].rjust(width), style)
        self._say(line)
        if row["why"]:
            self._say(Text(f"    {row['why']}", "dim"))

    def print_end(self, report: Plain) -> None:
        """Print what all was measured on, and the notes."""
        self._say(Text(""))
        for line in end_lines(report):
            self._say(line)

    def _say(self, text: Text | str) -> None:
        for line in Text.assemble(text).wrap(self._console, self._console.width) or [Text()]:
            line.rstrip()
            self._console.print(line)


def row_cells(case: Plain, row: Plain) -> dict[str, str]:
    """Write the numbers of a row: column to text."""
    seconds, ratio, work = row["seconds"], row["ratio"], case["work"]
    median = seconds["value"]
    spread = max(seconds["high"] - median, median - seconds["low"]) / median
    baseline = row["claim"] == "baseline"
    return {
        "time": seconds_text(median),
        "±": f"{100 * spread:.0f} %" if spread < 9.995 else ">999 %",
        "ratio": "1" if baseline else number(ratio["value"]),
        "": "" if baseline else row["claim"],
        "GFLOP/s": number(work["flops"] / median / 1e9) if work["flops"] else "",
        "GB/s": number(work["bytes"] / median / 1e9) if work["bytes"] else "",
        "samples/s": f"{work['samples'] / median:,.0f}" if work["samples"] else "",
        "first": "" if row["first_seconds"] is None else seconds_text(row["first_seconds"]),
        "memory": "" if row["memory"] is None else bytes_text(row["memory"]),
    }


def end_lines(report: Plain) -> list[str]:
    """Write what was measured on: ceilings, processor, threads, versions, notes."""
    lines = [
        f"{device}: at best {ceiling['flops'] / 1e9:,.0f} GFLOP/s and {ceiling['bandwidth'] / 1e9:,.1f} GB/s, measured"
        for device, ceiling in report["ceilings"].items()
    ]
    machine = report["machine"]
    lines.append(f"{machine['processor']}, {machine['processors']} processors; {threads_text(report['threads'])}")
    lines.append(", ".join(f"{name} {version}" for name, version in report["versions"].items()))
    lines.append("time: median of the rounds; ±: its 95 % interval; ratio: to the first side's, in the same rounds")
    return [*lines, *(f"note: {note}" for note in report["notes"])]


def threads_text(threads: Mapping[str, int]) -> str:
    """Write ``2 threads each: numpy, torch``, or each side's where they differ."""
    counts = set(threads.values())
    if len(counts) == 1:
        count = counts.pop()
        return f"{count} {'thread' if count == 1 else 'threads'} each: {', '.join(threads)}"
    return "threads: " + ", ".join(f"{name} {count}" for name, count in threads.items())


def print_comparison(compared: Plain, stream: TextIO | None = None) -> None:
    """Print what `bench.compare.compare` found."""
    console = make_console(stream or sys.stdout)
    for name in ("first", "second"):
        side = compared[name]
        console.print(Text.assemble((f"{name}: ", "dim"), f"{side['file']}: {side['machine']}"))
    for line in compared["differences"]:
        console.print(Text(f"  differs: {line}", "yellow"))
    rows: Sequence[Plain] = compared["rows"]
    width = max((len(row["case"]) for row in rows), default=4) + 2
    part = ""
    for row in rows:
        if row["part"] != part:
            part = row["part"]
            console.print()
            console.print(Text(part, "bold"))
            head = "case".ljust(width) + "side".ljust(_SIDE) + "first".rjust(10) + "second".rjust(10)
            console.print(Text(head + "second / first".rjust(15) + "noise".rjust(7), "dim"))
        line = Text(row["case"].ljust(width) + row["side"].ljust(_SIDE))
        line.append(seconds_text(row["first"]).rjust(10) + seconds_text(row["second"]).rjust(10))
        line.append(number(row["ratio"]).rjust(15) + f"{row['band']:.2f}".rjust(7))
        line.append(f"  {row['claim']}", _STYLES[row["claim"]])
        console.print(line)
    console.print()
    for line in compared["summary"]:
        console.print(Text(line))
