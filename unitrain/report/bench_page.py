"""The page of a benchmark: charts, every number, and what it was measured on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unitrain.report.bench_curves import curves
from unitrain.report.bench_figures import looks, roofline, sweep, times
from unitrain.report.bench_table import row_cells, threads_text
from unitrain.report.figures import check_report_packages
from unitrain.report.page import fill_page
from unitrain.report.quantities import bytes_text

Plain = Mapping[str, Any]

_TITLES = {
    "ops": "Tensor operations",
    "gradients": "Gradients",
    "training": "Training",
    "inference": "Inference",
    "curves": "Cost curves",
}


def render_bench_page(report: Plain) -> str:
    """Draw the page.

    Parameters
    ----------
    report
        Plain values, as ``unitrain bench --json`` writes them.

    Raises
    ------
    InputError
        Matplotlib or Jinja2 is not installed.
    """
    check_report_packages()
    return fill_page(
        "bench.html",
        sections=_sections(report),
        heads=list(HEADS),
        facts=_facts(report),
        notes=report["notes"],
        command=report["command"],
    )


def _sections(report: Plain) -> list[dict[str, Any]]:
    """Return one section a part and device."""
    cases = report["cases"]
    styles = looks(cases)
    sections = []
    for part, device in dict.fromkeys((case["part"], case["device"]) for case in cases):
        mine = [case for case in cases if (case["part"], case["device"]) == (part, device)]
        sections.append(
            {
                "id": f"{part}-{device}".replace(":", "-"),
                "title": _TITLES[part] if len(report["ceilings"]) == 1 else f"{_TITLES[part]} on {device}",
                # Curves show the same numbers, and many more points than a chart of ratios can hold.
                "times": "" if part == "curves" else times(mine, styles),
                "curves": [{"title": title, "chart": chart} for title, chart in curves(mine, styles)],
                "roofline": roofline(mine, report["ceilings"][device], styles) if part == "ops" else "",
                "sweep": sweep(mine, styles) if part == "ops" else "",
                "cases": [_case(case) for case in mine],
            }
        )
    return sections


def _case(case: Plain) -> dict[str, Any]:
    rows = []
    for row in case["rows"]:
        cells = {} if row["failure"] else row_cells(case, row)
        interval = row["seconds"]
        rows.append(
            {
                "contender": row["contender"],
                "claim": row["claim"],
                "failure": row["failure"],
                "why": row["why"],
                "title": "" if not interval else f"{interval['low']:.4g} s to {interval['high']:.4g} s",
                "cells": [cells.get(name, "") for name in HEADS.values()],
            }
        )
    band = "" if case["band"] is None else f"{case['rounds']} rounds; A/A twin within {case['band']:.2f}"
    return {"name": case["name"], "about": case["about"], "band": band, "rows": rows}


# Head of a column to the cell of `row_cells` in it.
HEADS = {
    "time": "time",
    "±": "±",
    "ratio": "ratio",
    "GFLOP/s": "GFLOP/s",
    "GB/s": "GB/s",
    "samples/s": "samples/s",
    "first call": "first",
    "memory": "memory",
}


def _facts(report: Plain) -> list[tuple[str, str]]:
    machine = report["machine"]
    described = [
        ("processor", f"{machine['processor']}, {machine['processors']} processors"),
        ("caches", ", ".join(f"{level} {size}" for level, size in machine.get("caches", {}).items())),
        ("memory", bytes_text(machine["memory"]) if "memory" in machine else ""),
        ("BLAS of NumPy", machine.get("blas", "")),
        ("system", machine.get("system", "")),
        ("load at the start", str(machine.get("load", ""))),
    ]
    ceilings = [
        (
            f"ceilings of {device}",
            f"{ceiling['flops'] / 1e9:,.0f} GFLOP/s, the best matrix product seen; "
            f"{ceiling['bandwidth'] / 1e9:,.1f} GB/s, the best of copy, add and triad",
        )
        for device, ceiling in report["ceilings"].items()
    ]
    return [
        *described,
        ("threads", threads_text(report["threads"])),
        *ceilings,
        ("versions", ", ".join(f"{name} {version}" for name, version in report["versions"].items())),
        ("seed", str(report["seed"])),
        ("time", ", ".join(f"{part} {seconds:.0f} s" for part, seconds in report["seconds"].items())),
    ]
