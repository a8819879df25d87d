"""The page of a study: the recommendation, the fronts, every number, and what it was measured on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unitrain.report.figures import check_report_packages
from unitrain.report.page import fill_page
from unitrain.report.quantities import bytes_text, number, seconds_text
from unitrain.report.study_figures import latency_chart, sensitivity_chart, size_chart
from unitrain.report.study_table import SHARES, common_notes, end_lines

Plain = Mapping[str, Any]

HEADS = (
    "value [95 %]",
    "gain [95 %]",
    "p (Holm)",
    "agreement",
    "SQNR",
    "p50",
    "p90",
    "p99",
    "single [95 %]",
    "offline [95 %]",
    "file",
    "gzip",
    "weights",
    "non-zeros",
    "MACs",
    "int8",
    "memory",
    "load",
    "CPU",
)


def render_study_page(study: Plain) -> str:
    """Draw the page.

    Parameters
    ----------
    study
        Plain values, as in ``study.json``.

    Raises
    ------
    InputError
        Matplotlib or Jinja2 is not installed.
    """
    check_report_packages()
    return fill_page(
        "study.html",
        study=study,
        heads=HEADS,
        rows=[_row(row) for row in study["rows"]],
        latency=latency_chart(study),
        size=size_chart(study),
        sensitivity=sensitivity_chart(study),
        explained=end_lines(study)[: -len([*study["notes"], *common_notes(study["rows"])]) or None],
        notes=[*study["notes"], *common_notes(study["rows"])],
        facts=_facts(study),
        command=study["command"],
    )


def _row(row: Plain) -> dict[str, Any]:
    quality, size = row["test"] or {}, row["size"] or {}
    single, offline = (row["latency"].get(name) or {} for name in ("single stream", "offline"))
    share = quality.get("measure") in SHARES
    cells = [
        _interval(quality.get("value"), share),
        _interval(quality.get("gain"), share),
        "" if quality.get("corrected") is None else number(quality["corrected"]),
        "" if quality.get("agreement") is None else f"{100 * quality['agreement']:.2f} %",
        "" if quality.get("signal_to_noise") is None else f"{quality['signal_to_noise']:.1f} dB",
        *("" if single.get(name) is None else seconds_text(single[name]) for name in ("p50", "p90", "p99")),
        _interval(single.get("ratio"), False),
        _interval(offline.get("ratio"), False),
        *("" if size.get(name) is None else bytes_text(size[name]) for name in ("file", "compressed", "weights")),
        *("" if size.get(name) is None else f"{size[name]:,}" for name in ("non_zeros", "macs")),
        row["coverage"],
        "" if row["peak_memory"] is None else bytes_text(row["peak_memory"]),
        "" if row["load_seconds"] is None else seconds_text(row["load_seconds"]),
        "" if row["cpu_seconds"] is None else seconds_text(row["cpu_seconds"]),
    ]
    return {
        "name": row["name"],
        "what": row["what"],
        "file": row["file"],
        "failure": row["failure"],
        "verdict": quality.get("verdict") or "",
        "claim": single.get("claim", ""),
        "cells": cells,
    }


def _interval(interval: Plain | None, share: bool) -> str:
    """Write ``98.91 [97.60, 99.52]``."""
    if not interval:
        return ""
    ends = [interval[name] for name in ("value", "low", "high")]
    value, low, high = (f"{100 * end:.2f}" if share else number(end) for end in ends)
    return f"{value} [{low}, {high}]"


def _facts(study: Plain) -> list[tuple[str, str]]:
    machine = study["machine"]
    hashes = study["splits"]["hashes"]
    return [
        ("processor", f"{machine['processor']}, {machine['processors']} processors"),
        ("CPU flags", machine.get("cpu flags", "")),
        ("system", machine.get("system", "")),
        ("load at the start", str(machine.get("load", ""))),
        ("versions", ", ".join(f"{name} {version}" for name, version in study["versions"].items())),
        ("seed", str(study["seed"])),
        ("settings", ", ".join(f"{name} {value}" for name, value in study["options"].items() if value is not None)),
        *((f"samples of {name}", f"{study['splits']['counts'][name]:,}, SHA-256 {hashes[name]}") for name in hashes),
        *((f"SHA-256 of {row['file']}", row["sha256"]) for row in study["rows"] if row["sha256"]),
        ("source", study["source"]),
        ("time", f"{study['seconds']:.0f} s"),
    ]
