"""Two benchmarks, of two machines or two versions, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unitrain.bench.results import read_report
from unitrain.spec.errors import InputError
from unitrain.timing import Interval, claim

Plain = Mapping[str, Any]


def compare(first: Path, second: Path) -> dict[str, Any]:
    """Hold the second file's times against the first's.

    Returns
    -------
    dict
        Plain values: ``rows``, each with ``part``, ``case``, ``side``, the times ``first`` and ``second``, their
        ``ratio`` with ``low`` and ``high``, ``band`` and ``claim``; ``differences`` of versions and threads;
        ``summary`` in lines.

    Raises
    ------
    InputError
        A file is no benchmark, or the two have nothing in common.
    """
    one, other = read_report(first), read_report(second)
    rows = compare_cases(one, other)
    if not rows:
        raise InputError(
            "the two benchmarks have no case in common",
            found=f"{first}: {_names(one)}; {second}: {_names(other)}",
            hint="run both with the same parts, sizes and models",
        )
    return {
        "first": {"file": str(first), "machine": _machine(one)},
        "second": {"file": str(second), "machine": _machine(other)},
        "differences": _differences(one, other),
        "rows": rows,
        "summary": _summary(rows, one, other),
    }


def compare_cases(one: Plain, other: Plain) -> list[dict[str, Any]]:
    """Compare all cases and sides that both reports have, by what they are called and what they are about.

    The two were not measured in the same rounds, so the interval of the ratio is that of both intervals' ends, which is
    wider than 95 %; and it must lie outside both A/A bands before a difference is claimed.
    """
    known = {_key(case, row): (case, row) for case in other["cases"] for row in case["rows"] if row["seconds"]}
    found = []
    for case in one["cases"]:
        for row in case["rows"]:
            match = known.get(_key(case, row))
            if match is None or not row["seconds"]:
                continue
            other_case, other_row = match
            before, after = row["seconds"], other_row["seconds"]
            ratio = Interval(
                after["value"] / before["value"], after["low"] / before["high"], after["high"] / before["low"]
            )
            band = max(case["band"] or 1.0, other_case["band"] or 1.0)
            found.append(
                {
                    "part": case["part"],
                    "case": case["name"] if case["device"] == "cpu" else f"{case['name']} ({case['device']})",
                    "side": row["contender"],
                    "first": before["value"],
                    "second": after["value"],
                    "ratio": ratio.value,
                    "low": ratio.low,
                    "high": ratio.high,
                    "band": band,
                    "claim": claim(ratio, band),
                }
            )
    return found


def _key(case: Plain, row: Plain) -> tuple[str, ...]:
    return case["part"], case["name"], case["about"], case["device"], row["contender"]


def _names(report: Plain) -> str:
    return ", ".join(dict.fromkeys(case["part"] for case in report["cases"])) or "no cases"


def _machine(report: Plain) -> str:
    machine = report.get("machine", {})
    return f"{machine.get('processor', 'unknown')}, {machine.get('processors', '?')} processors"


def _differences(one: Plain, other: Plain) -> list[str]:
    """List the versions and threads that differ: what they explain is no difference of the machines."""
    found = []
    for kind in ("versions", "threads"):
        before, after = one.get(kind, {}), other.get(kind, {})
        for name in dict.fromkeys([*before, *after]):
            if before.get(name) != after.get(name):
                what = name if kind == "versions" else f"{name} threads"
                found.append(f"{what} {before.get(name, 'none')} and {after.get(name, 'none')}")
    return found


def _summary(rows: list[dict[str, Any]], one: Plain, other: Plain) -> list[str]:
    counts = {name: sum(row["claim"] == name for row in rows) for name in ("faster", "slower", "same")}
    mean = float(np.exp(np.mean([np.log(row["ratio"]) for row in rows])))
    total = {id(report): sum(len(case["rows"]) for case in report["cases"]) for report in (one, other)}
    lines = [
        f"the second is faster in {counts['faster']} of {len(rows)}, slower in {counts['slower']}; in {counts['same']} "
        "the difference does not exceed both noise floors",
        f"geometric mean of second / first: {mean:.2f}",
    ]
    alone = max(total.values()) - len(rows)
    return [*lines, f"{alone} rows stand in one file alone, or were not timed"] if alone else lines
