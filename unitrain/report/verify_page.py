"""The page of a verification: heat map of layers, tensors and backends, causes, training runs, probes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unitrain.report.figures import check_report_packages, new_figure, to_svg
from unitrain.report.page import fill_page
from unitrain.report.verdicts import (
    Plain,
    by_backend,
    by_part,
    cause_lines,
    excuses,
    failed,
    ratio_text,
    series,
    share,
    summary_line,
    worst,
)

# Level and whether a layer is by itself, to the column of the heat map: its head and what it means.
_COLUMNS: dict[tuple[str, bool], tuple[str, str]] = {
    ("forward", True): ("out", "output of the layer by itself"),
    ("backward", True): ("grad", "gradients of the layer by itself"),
    ("step", True): ("step", "updates of the layer, optimizer or loss by itself"),
    ("forward", False): ("out", "output in the whole model"),
    ("backward", False): ("grad", "gradients in the whole model"),
    ("step", False): ("step", "training steps of the whole model"),
    ("trajectory", False): ("run", "training run"),
    ("transfer", False): ("i/o", "weights in and out, save and load"),
}
# Colours that stay apart for colour-blind readers (Okabe & Ito 2008); as many as there may be backends.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
# Steps of the heat map: this many below the bound, over two powers of ten, and so many above, over six.
BELOW, ABOVE = 10, 4
# Causes shown in full; the others unfold.
CAUSES = 6


@dataclass(frozen=True)
class Cell:
    """One field of a heat map: ``style`` is its class, ``text`` what is written in it, ``title`` what it holds."""

    style: str
    text: str
    title: str


def render_verify_page(reports: Sequence[Plain], command: str) -> str:
    """Draw the page.

    Parameters
    ----------
    reports
        Plain values of one or more verifications, as ``unitrain verify --json`` prints them.
    command
        The command that does it again.

    Raises
    ------
    InputError
        Matplotlib or Jinja2 is not installed.
    """
    check_report_packages()
    return fill_page(
        "verify.html",
        reports=[_section(number, report) for number, report in enumerate(reports)],
        command=command,
        below=BELOW,
        above=ABOVE,
    )


def heat_style(finding: Plain) -> str:
    """Return the class of a tensor's field: ``h0`` to ``h10`` below the bound, ``f0`` to ``f3`` above, ``flip``."""
    value = share(finding)
    if failed(finding):
        if math.isinf(value):
            return f"f{ABOVE - 1}"
        return f"f{min(max(int(math.log10(max(value, 1.0)) / 6 * ABOVE), 0), ABOVE - 1)}"
    if not finding["passed"]:
        return "flip"
    return "h0" if value <= 0 else f"h{round(min(max(1.0 + math.log10(value) / 2.0, 0.0), 1.0) * BELOW)}"


def _section(number: int, report: Plain) -> dict[str, Any]:
    """Return all that the template shows of one report."""
    parts = by_part(report)
    columns = _columns(report)
    guilty = {cause["part"] for cause in report["causes"]}
    details = [
        {
            "id": f"r{number}-{index}",
            "part": part,
            "type": report["layers"].get(part, ""),
            "failed": any(failed(item) for item in found),
            "open": part in guilty,
            "backends": [backend for backend in report["backends"] if backend in by_backend(found)],
            "rows": _tensor_rows(found, report["backends"]),
            "cells": _overview(found, columns),
        }
        for index, (part, found) in enumerate(parts.items())
    ]
    probes = [item for item in details if item["part"] == "optimizer" or str(item["part"]).startswith("loss")]
    return {
        "id": f"r{number}",
        "name": report["subject"],
        "passed": report["passed"],
        "summary": summary_line(report),
        "facts": _facts(report),
        "causes": [{"text": cause["text"], "lines": cause_lines(report, cause)} for cause in report["causes"]],
        "shown": CAUSES,
        "backends": report["backends"],
        "columns": [
            {"backend": backend, "itself": sum(itself for _, itself in keys), "heads": [_COLUMNS[key] for key in keys]}
            for backend, keys in columns.items()
        ],
        "details": details,
        "probes": probes,
        "trajectory": _distance_figure(report["trajectories"]),
        "losses": _loss_figure(report["trajectories"]),
        "runs": [_run_row(item) for item in sorted(report["trajectories"], key=_is_yardstick)],
        "notes": [*report["notes"], *(f"{count:,} tensors excused, {why}" for why, count in excuses(report).items())],
    }


def _columns(report: Plain) -> dict[str, list[tuple[str, bool]]]:
    """Return for each backend the columns in which it has a tensor."""
    present = {(item["backend"], item["level"], item["isolated"]) for item in report["findings"]}
    return {backend: [key for key in _COLUMNS if (backend, *key) in present] for backend in report["backends"]}


def _overview(findings: Sequence[Plain], columns: Mapping[str, Sequence[tuple[str, bool]]]) -> list[list[Cell]]:
    """Return the fields of one row of the heat map, backend by backend."""
    mine = by_backend(findings)
    fields = []
    for backend, keys in columns.items():
        grouped: dict[tuple[str, bool], list[Plain]] = {}
        for item in mine.get(backend, []):
            grouped.setdefault((item["level"], item["isolated"]), []).append(item)
        fields.append([_cell(grouped.get(key, []), backend, _COLUMNS[key][1], number=False) for key in keys])
    return fields


def _tensor_rows(findings: Sequence[Plain], backends: Sequence[str]) -> list[dict[str, Any]]:
    """Return one row a tensor, the worst of its updates or steps for each backend."""
    grouped: dict[tuple[str, bool, str, str], list[Plain]] = {}
    for item in findings:
        grouped.setdefault((item["level"], item["isolated"], item["mode"], series(item)), []).append(item)
    rows = []
    present = by_backend(findings)
    shown = [backend for backend in backends if backend in present]
    for (level, isolated, mode, tensor), found in grouped.items():
        mine = by_backend(found)
        rows.append(
            {
                "where": "by itself" if isolated else "in the model",
                "level": level,
                "mode": mode,
                "tensor": tensor,
                "cells": [_cell(mine.get(backend, []), backend, tensor, number=True) for backend in shown],
            }
        )
    return rows


def _cell(findings: Sequence[Plain], backend: str, what: str, *, number: bool) -> Cell:
    if not findings:
        return Cell("none", "", f"{backend}: {what} was not compared")
    one = worst(findings)
    mark = "✗" if failed(one) else "~" if not one["passed"] else ""
    text = f"{mark} {ratio_text(one)}".strip() if number else mark.strip("~")
    said = one["reason"] or f"ratio {ratio_text(one)}"
    verdict = "FAIL, " if failed(one) else f"excused, {one['excuse']}, " if mark else ""
    many = f", worst of {len(findings):,}" if len(findings) > 1 else ""
    return Cell(heat_style(one), text, f"{backend}: {verdict}{one['tensor']}, {one['mode']}: {said}{many}")


def _facts(report: Plain) -> list[tuple[str, str]]:
    devices: Mapping[str, str] = report["devices"]
    return [
        ("backends", ", ".join(f"{name} on {devices.get(name, 'cpu')}" for name in report["backends"])),
        ("precision", report["precision"]),
        ("levels", ", ".join(report["levels"])),
        ("data", f"{report['data']}, seed {report['seed']}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in report["versions"].items())),
        ("time", ", ".join(f"{level} {seconds:.1f} s" for level, seconds in report["seconds"].items())),
    ]


def _run_row(trajectory: Plain) -> tuple[str, str, str, str]:
    distance = trajectory["distance"][-1] if trajectory["distance"] else None
    return (
        trajectory["backend"],
        trajectory["outcome"] or "yardstick",
        "-" if distance is None else f"{distance:.2e}",
        f"{sum(trajectory['flips']):,}" if trajectory["flips"] else "",
    )


def _is_yardstick(trajectory: Plain) -> bool:
    return not trajectory["outcome"]


def _distance_figure(trajectories: Sequence[Plain]) -> str:
    """Draw the distances from the float64 run over the steps, and where kinks were seen on the other side."""
    if not trajectories:
        return ""
    figure, axes = new_figure(7.2, 3.6)
    moved = [item for item in trajectories if _is_yardstick(item) and item["backend"] != "numpy32"]
    if moved:
        steps = min((item["steps"] for item in moved), key=len)
        points = [[item["distance"][index] for item in moved] for index in range(len(steps))]
        known = [(step, _known(point)) for step, point in zip(steps, points, strict=True)]
        known = [(step, point) for step, point in known if point]
        axes.fill_between(
            [step for step, _ in known],
            [min(point) * 0.9 for _, point in known],
            [max(point) * 1.1 for _, point in known],
            color="#999999",
            alpha=0.5,
            linewidth=0,
            label="float64 from moved weights",
        )
    for item in trajectories:
        if item["backend"] == "numpy32":
            axes.plot(*_curve(item), color="#666666", linestyle="--", linewidth=1.5, label="NumPy in float32")
    tested = [item for item in trajectories if not _is_yardstick(item)]
    for index, item in enumerate(tested):
        colour = _COLOURS[index % len(_COLOURS)]
        axes.plot(*_curve(item), color=colour, linewidth=1.5, label=item["backend"])
        flipped = [
            (step, distance)
            for step, distance, flips in zip(item["steps"], item["distance"], item["flips"], strict=False)
            if flips and distance
        ]
        if flipped:
            axes.plot(*zip(*flipped, strict=True), color=colour, linestyle="", marker="o", markersize=4)
    if any(any(item["flips"]) for item in tested):
        axes.plot([], [], color="#666666", linestyle="", marker="o", markersize=4, label="with flipped kinks")
    axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_title("distance from the float64 run, relative to its change")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return to_svg(figure)


def _curve(trajectory: Plain) -> tuple[list[int], list[float]]:
    """Return steps and distances that a logarithmic axis can show."""
    pairs = zip(trajectory["steps"], trajectory["distance"], strict=False)
    shown = [(step, distance) for step, distance in pairs if distance]
    return [step for step, _ in shown], [distance for _, distance in shown]


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value]


def _loss_figure(trajectories: Sequence[Plain]) -> str:
    tested = [item for item in trajectories if not _is_yardstick(item) and item["losses"]]
    if not tested:
        return ""
    figure, axes = new_figure(7.2, 3.0)
    # Where all agree the curves lie on each other: the first is broad, the last is fine.
    for index, item in enumerate(tested):
        known = [(step, loss) for step, loss in enumerate(item["losses"], start=1) if loss is not None]
        if known:
            width = 1.0 + 2.0 * (len(tested) - 1 - index)
            colour = _COLOURS[index % len(_COLOURS)]
            axes.plot(*zip(*known, strict=True), color=colour, linewidth=width, label=item["backend"])
    axes.set_xlabel("step")
    axes.set_title("training loss")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return to_svg(figure)
