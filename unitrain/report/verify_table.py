"""A verification on the terminal: layers with their worst ratios, causes, training runs, the verdict."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO

from rich.text import Text

from unitrain.report.table import make_console, print_table
from unitrain.report.verdicts import (
    Plain,
    by_backend,
    by_part,
    cause_lines,
    excuses,
    failed,
    ratio_text,
    share,
    summary_line,
    worst,
)

ROWS = 12
TENSORS, CAUSES = 4, 6
# A bar has this many characters, and begins at this share of what is allowed.
_BAR, _SMALLEST = 5, 0.01
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def print_verification(report: Plain, *, every: bool = False, stream: TextIO | None = None) -> None:
    """Print one report.

    Parameters
    ----------
    report
        Plain values, as ``--json`` prints them.
    every
        Show all layers, in order, all causes and failing tensors; else the `ROWS` worst layers.
    stream
        Where to; standard output by default.
    """
    output = stream or sys.stdout
    console = make_console(output)

    def say(text: str | Text = "", indent: int = 0) -> None:
        for line in Text.assemble(text).wrap(console, console.width - indent) or [Text()]:
            line.rstrip()
            console.print(Text(" " * indent) + line)

    devices = report["devices"]
    who = ", ".join(name if devices.get(name, "cpu") == "cpu" else f"{name} ({devices[name]})" for name in devices)
    say(Text.assemble((report["subject"], "bold"), f": {who} in {report['precision']}"))
    say(f"{report['data']}; seed {report['seed']}; {', '.join(report['levels'])}", 2)
    say()
    _print_layers(report, every, output)
    _print_causes(report, every, say)
    if report["trajectories"]:
        _print_trajectories(report["trajectories"], output)
    say()
    say(summary_line(report))
    for reason, count in excuses(report).items():
        say(f"{count:,} tensors excused, {reason}")
    if report["seconds"]:
        say(", ".join(f"{level} {seconds:.1f} s" for level, seconds in report["seconds"].items()))
    for note in report["notes"]:
        say(f"note: {note}")
    say(verdict_line(report))


def _print_causes(report: Plain, every: bool, say: Callable[..., None]) -> None:
    causes = report["causes"]
    if not causes:
        return
    say()
    say(Text("causes", "bold"))
    shown = causes if every else causes[:CAUSES]
    for cause in shown:
        say(Text(cause["text"], "red"), 2)
        lines = cause_lines(report, cause)
        told = lines if every else lines[:TENSORS]
        for line in told:
            say(line, 4)
        if len(lines) > len(told):
            say(f"and {len(lines) - len(told):,} more tensors", 4)
    if len(causes) > len(shown):
        others = ", ".join(f"{cause['part']} on {cause['backend']}" for cause in causes[CAUSES:])
        say(f"and {len(causes) - len(shown):,} more (--all shows their tensors): {others}", 2)


def verdict_line(report: Plain) -> Text:
    """Write ``PASS lenet5`` or ``FAIL lenet5``."""
    word, style = ("PASS", "bold green") if report["passed"] else ("FAIL", "bold red")
    return Text.assemble((word, style), f" {report['subject']}")


def _print_layers(report: Plain, every: bool, output: TextIO) -> None:
    backends: Sequence[str] = report["backends"]
    parts = {part: by_backend(found) for part, found in by_part(report).items()}
    if not parts:
        return
    wide = _takes(output, _EIGHTHS)
    bars = len(backends) <= 4
    order = list(parts)
    if not every:
        worsts = {part: worst(item for found in parts[part].values() for item in found) for part in parts}
        # A layer that fails by itself stands before those that pass its error on.
        guilty = {cause["part"] for cause in report["causes"]}
        order.sort(key=lambda part: (not failed(worsts[part]), part not in guilty, -share(worsts[part])))
    shown = order if every else order[:ROWS]
    rows: list[list[str | Text]] = []
    for part in shown:
        cells = [_cell(parts[part].get(backend, []), wide, bars) for backend in backends]
        rows.append([part, report["layers"].get(part, ""), *cells])
    print_table(["layer", "type", *backends], rows, fixed=backends, stream=output)
    hidden = len(order) - len(shown)
    if hidden:
        make_console(output).print(Text(f"and {hidden} more with smaller ratios; --all shows them", "dim"))
    legend = "error over what rounding costs NumPy / bound; bars: full at the bound, half at a tenth of it"
    make_console(output).print(Text(legend, "dim"))


def _cell(findings: Sequence[Plain], wide: bool, bars: bool) -> Text:
    """Write a backend's worst tensor of a layer: ratio, bound, and a bar or a word."""
    if not findings:
        return Text("-", "dim")
    one = worst(findings)
    text = f"{ratio_text(one):>8}"
    if failed(one):
        return Text(f"{text} FAIL", "bold red")
    if not one["passed"]:
        return Text(f"{text} flip", "yellow")
    drawn = f" {bar(share(one), wide)}" if bars else ""
    return Text.assemble(text, (drawn, "yellow" if share(one) > 0.5 else "green"))


def bar(value: float, wide: bool) -> str:
    """Draw a share on a logarithmic scale, from a hundredth of the bound to the bound."""
    if value <= 0.0:
        return " " * _BAR
    filled = min(max(1.0 - math.log10(value) / math.log10(_SMALLEST), 0.0), 1.0) * _BAR
    if not wide:
        return ("#" * math.ceil(filled)).ljust(_BAR)
    eighths = math.ceil(filled * 8)
    whole, rest = divmod(eighths, 8)
    return (_EIGHTHS[8] * whole + (_EIGHTHS[rest] if rest else "")).ljust(_BAR)


def _print_trajectories(trajectories: Sequence[Mapping[str, Any]], output: TextIO) -> None:
    steps = max((item["steps"][-1] for item in trajectories if item["steps"]), default=0)
    rows: list[list[str | Text]] = []
    for item in sorted(trajectories, key=lambda item: not item["outcome"]):
        outcome = item["outcome"] or "a yardstick"
        style = "bold red" if outcome.startswith("FAIL") else "dim" if not item["outcome"] else ""
        distance = item["distance"][-1] if item["distance"] else None
        flips = f"{sum(item['flips']):,}" if item["flips"] else ""
        rows.append([item["backend"], Text(outcome, style), "-" if distance is None else f"{distance:.1e}", flips])
    make_console(output).print()
    numbers = ["distance", "flips"]
    print_table([f"{steps:,} steps", "outcome", *numbers], rows, right=numbers, stream=output)


def _takes(output: TextIO, characters: str) -> bool:
    """Say whether a stream can write these characters."""
    try:
        characters.encode(output.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
