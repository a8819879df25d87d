"""The cost curves of a benchmark: seconds, samples a second and memory, over the batch size or the width."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from unitrain.report.figures import new_figure, to_svg

Plain = Mapping[str, Any]
# Value, lower end, upper end; None where a row has none.
_Read = Callable[[Plain, Plain], tuple[float, float, float] | None]


def curves(cases: Sequence[Plain], styles: Mapping[str, tuple[str, str]]) -> list[tuple[str, str]]:
    """Draw each curve that has two points or more: titles and charts.

    Parameters
    ----------
    cases
        Plain values, as in the JSON; those without a ``point`` are of no curve, as all are in files of older versions.
    styles
        Contender to colour and mark, as `bench_figures.looks` gives them.
    """
    groups: dict[tuple[str, str], list[Plain]] = {}
    for case in cases:
        point = case.get("point")
        if point and any(row["seconds"] for row in case["rows"]):
            groups.setdefault((point["curve"], point["over"]), []).append(case)
    return [
        (f"{curve} over the {'batch size' if over == 'batch' else over}", _draw(mine, over, styles))
        for (curve, over), mine in groups.items()
        if len(mine) > 1
    ]


def _draw(cases: Sequence[Plain], over: str, styles: Mapping[str, tuple[str, str]]) -> str:
    ordered = sorted(cases, key=lambda case: int(case["point"]["at"]))
    trains = any(case["point"]["steps"] > 1 for case in ordered)
    panels: list[tuple[str, _Read]] = [
        ("ms a step" if trains else "latency of a call, ms", _milliseconds),
        ("samples a second", _throughput),
    ]
    if any(row["memory"] for case in ordered for row in case["rows"]):
        panels.append(("peak memory, MiB", _memory))
    figure, _ = new_figure(10.4, 3.1)
    figure.clear()
    named = dict.fromkeys(row["contender"] for case in ordered for row in case["rows"])
    for axes, (title, read) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        for name in named:
            colour, mark = styles[name]
            points = [
                (case["point"]["at"], *numbers)
                for case in ordered
                for row in case["rows"]
                if row["contender"] == name and (numbers := read(case, row)) is not None
            ]
            if points:
                places, values, low, high = zip(*points, strict=True)
                axes.plot(places, values, color=colour, marker=mark, markersize=4.5, linewidth=1.4, label=name)
                axes.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        at = [case["point"]["at"] for case in ordered]
        axes.set_xticks(at, [str(value) for value in at], fontsize=8)
        axes.xaxis.minorticks_off()
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
        axes.yaxis.set_minor_formatter(lambda value, _: "")
        axes.tick_params(axis="y", labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlabel("batch size" if over == "batch" else over)
        axes.set_title(title, fontsize=10)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return to_svg(figure)


def _milliseconds(case: Plain, row: Plain) -> tuple[float, float, float] | None:
    seconds, steps = row["seconds"], case["point"]["steps"]
    if not seconds:
        return None
    return 1e3 * seconds["value"] / steps, 1e3 * seconds["low"] / steps, 1e3 * seconds["high"] / steps


def _throughput(case: Plain, row: Plain) -> tuple[float, float, float] | None:
    seconds, samples = row["seconds"], case["work"]["samples"]
    if not seconds:
        return None
    return samples / seconds["value"], samples / seconds["high"], samples / seconds["low"]


def _memory(case: Plain, row: Plain) -> tuple[float, float, float] | None:
    # On an axis of logarithms nothing has no place: what did not grow is left out.
    return (row["memory"] / 2**20,) * 3 if row["memory"] and row["seconds"] else None
