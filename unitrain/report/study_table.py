"""A study on the terminal: one line a variant, then the reasons, the recommendation, and what was measured on."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from rich.text import Text

from unitrain.report.quantities import bytes_text, number, seconds_text
from unitrain.report.table import make_console, print_table

Plain = Mapping[str, Any]

SHARES = ("accuracy", "token accuracy", "agreement")
_STYLES = {
    "faster": "green",
    "slower": "yellow",
    "same": "dim",
    "baseline": "dim",
    "not inferior": "green",
    "inferior": "red",
    "open": "yellow",
}


def print_study(study: Plain, stream: TextIO | None = None) -> None:
    """Print a study (plain values, as in its JSON)."""
    output = stream or sys.stdout
    console = make_console(output)

    def say(text: Text | str) -> None:
        for line in Text.assemble(text).wrap(console, console.width) or [Text()]:
            line.rstrip()
            console.print(line)

    measured = [row for row in study["rows"] if not row["failure"]]
    quality = study["measure"] if study["kind"] != "speed only" else ""
    head = ["variant", quality or "quality", "verdict", "p50", "single", "offline", "file", "int8"]
    say(Text(f"{study['name']}: {study['kind']}", "bold"))
    right, fixed = (head[1], "p50", "file", "int8"), ("variant", "verdict", "single", "offline")
    print_table(head, [_cells(row) for row in measured], right=right, fixed=fixed, stream=output)
    failed = [row for row in study["rows"] if row["failure"]]
    if failed:
        say("")
        say(Text("no candidates, and why", "bold"))
        for row in failed:
            say(Text.assemble((f"{row['name']}: ", "red"), row["failure"]))
    say("")
    say(Text(study["recommendation"], "bold"))
    say("")
    for line in end_lines(study):
        say(Text(line, "dim"))


def _cells(row: Plain) -> list[str | Text]:
    """Write one variant: a cell a column."""
    single, offline = (row["latency"].get(name) for name in ("single stream", "offline"))
    test = row["test"]
    verdict = (test or {}).get("verdict") or ("baseline" if test else "")
    return [
        row["name"],
        quality_text(test),
        Text(verdict, _STYLES.get(verdict, "")),
        seconds_text(single["p50"]) if single else "",
        ratio_text(single),
        ratio_text(offline),
        bytes_text(row["size"]["file"]) if row["size"] else "",
        row["coverage"],
    ]


def quality_text(quality: Plain | None) -> str:
    """Write ``98.91 ± 0.61``, the longer side of the 95 % interval: shares in percent, errors as they are."""
    if quality is None:
        return ""
    value = quality["value"]
    spread = max(value["high"] - value["value"], value["value"] - value["low"])
    if quality["measure"] in SHARES:
        return f"{100 * value['value']:.2f} ± {100 * spread:.2f}"
    return f"{number(value['value'])} ± {number(spread)}"


def ratio_text(latency: Plain | None) -> Text:
    """Write ``0.43 faster``."""
    if latency is None:
        return Text("")
    if latency["ratio"] is None:
        return Text("1", "dim")
    claim = latency["claim"]
    return Text(f"{number(latency['ratio']['value'])} {claim}", _STYLES[claim])


def end_lines(study: Plain) -> list[str]:
    """Write what the numbers are, what they were measured on, and what should be known."""
    bands = ", ".join(f"{name} within {band:.3f}" for name, band in study["bands"].items())
    rounds = max(study["rounds"].values(), default=0)
    options = study["options"]
    lines = [
        f"single, offline: time to that of fp32 with batch 1 and {options['batch']}, median of {rounds} interleaved "
        f"rounds; A/A twin: {bands}, and no smaller difference is claimed",
    ]
    if study["kind"] != "speed only":
        unit = ", in percent" if study["measure"] in SHARES else ""
        lines.append(f"{study['measure']}{unit}: on the test samples, ± the longer side of the 95 % interval")
    counts = study["splits"]["counts"]
    if study["kind"] == "speed only":
        lines.append("inputs were random: speed only, nothing is said of quality")
    else:
        shown = ", ".join(f"{count:,} {name}" for name, count in counts.items())
        lines.append(f"samples, disjoint: {shown}; chosen on selection, the table shows test")
        lines.append(
            f"verdict: whether {study['measure']} is worse than fp32's by more than {100 * options['margin']:g} % of "
            "it (open: too few samples to tell)"
            + ("; the float model is the measure: fidelity, not accuracy" if study["kind"] == "fidelity" else "")
        )
    machine = study["machine"]
    threads = options["threads"]
    lines.append(
        f"{machine['processor']}, {threads} {'thread' if threads == 1 else 'threads'}; "
        + ", ".join(f"{name} {version}" for name, version in study["versions"].items())
    )
    shared = common_notes(study["rows"])
    return [*lines, *(f"note: {note}" for note in (*study["notes"], *shared))]


def common_notes(rows: Sequence[Plain]) -> list[str]:
    """Return the notes of all rows, each once."""
    return list(dict.fromkeys(note for row in rows for note in row["notes"]))
