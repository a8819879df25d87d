"""The charts of a study: quality over latency and over size with the front that nothing beats, and sensitivity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unitrain.report.figures import new_figure, to_svg
from unitrain.report.study_table import SHARES

Plain = Mapping[str, Any]

# Colours that stay apart for colour-blind readers (Okabe & Ito 2008).
_POINT, _FRONT, _BASE = "#0072B2", "#D55E00", "#000000"
# Of operators, the worst, in the chart of sensitivities.
_BARS = 30


@dataclass(frozen=True)
class Point:
    """A variant in a chart: its cost with an interval, and its quality with one."""

    name: str
    cost: tuple[float, float, float]
    quality: tuple[float, float, float]


def front(points: Sequence[Point], *, less_is_better: bool) -> list[Point]:
    """Return the points that no other beats in both cost and quality, the cheapest first."""
    sign = -1.0 if less_is_better else 1.0
    found: list[Point] = []
    for point in sorted(points, key=lambda item: (item.cost[0], -sign * item.quality[0])):
        if not found or sign * point.quality[0] > sign * found[-1].quality[0]:
            found.append(point)
    return found


def near_baseline(points: Sequence[Point], *, less_is_better: bool) -> tuple[list[Point], list[Point]]:
    """Part points from those so much worse than the float model that beside them all others would look alike."""
    base = next((point.quality[0] for point in points if point.name == "fp32"), None)
    if base is None:
        return list(points), []

    def far(point: Point) -> bool:
        return point.quality[0] > 2.0 * base if less_is_better else point.quality[0] < 0.8 * base

    return [point for point in points if not far(point)], [point for point in points if far(point)]


def labels(points: Sequence[Point]) -> list[tuple[str, tuple[float, float]]]:
    """Return names with their places; points that lie on one another share a label."""
    width, height = (_extent([getattr(point, axis)[0] for point in points]) for axis in ("cost", "quality"))
    groups: list[list[Point]] = []
    for point in sorted(points, key=lambda item: item.cost[0]):
        for group in groups:
            first = group[0]
            close = abs(point.cost[0] - first.cost[0]) <= 0.03 * width
            if close and abs(point.quality[0] - first.quality[0]) <= 0.15 * height:
                group.append(point)
                break
        else:
            groups.append([point])
    return [(", ".join(item.name for item in group), (group[0].cost[0], group[0].quality[0])) for group in groups]


def _extent(numbers: Sequence[float]) -> float:
    return max(numbers) - min(numbers) if numbers else 0.0


def latency_chart(study: Plain) -> str:
    """Draw quality over the time of a single stream; nothing without quality."""
    points = []
    base = next((row for row in study["rows"] if row["name"] == "fp32"), None)
    single = base and base["latency"].get("single stream")
    if not single:
        return ""
    for row in _judged(study):
        found = row["latency"].get("single stream")
        if found is None:
            continue
        ratio = found["ratio"] or {"value": 1.0, "low": 1.0, "high": 1.0}
        cost = tuple(1000 * single["p50"] * ratio[end] for end in ("value", "low", "high"))
        points.append(Point(row["name"], (cost[0], cost[1], cost[2]), _quality(row, study["measure"])))
    return _chart(points, study["measure"], "single stream, ms (fp32's median times the ratio)")


def size_chart(study: Plain) -> str:
    """Draw quality over the size of the file; nothing without quality."""
    points = []
    for row in _judged(study):
        if row["size"]:
            size = row["size"]["file"] / 2**20
            points.append(Point(row["name"], (size, size, size), _quality(row, study["measure"])))
    return _chart(points, study["measure"], "file, MiB")


def _judged(study: Plain) -> list[Plain]:
    return [row for row in study["rows"] if row["test"] and not row["failure"]]


def _quality(row: Plain, measure: str) -> tuple[float, float, float]:
    value, scale = row["test"]["value"], 100.0 if measure in SHARES else 1.0
    return scale * value["value"], scale * value["low"], scale * value["high"]


def _chart(points: Sequence[Point], measure: str, label: str) -> str:
    if not points:
        return ""
    figure, axes = new_figure(8.6, 4.4)
    less = measure not in SHARES
    points, far = near_baseline(points, less_is_better=less)
    for point in points:
        cost, quality = point.cost, point.quality
        axes.errorbar(
            [cost[0]],
            [quality[0]],
            xerr=[[max(cost[0] - cost[1], 0.0)], [max(cost[2] - cost[0], 0.0)]],
            yerr=[[max(quality[0] - quality[1], 0.0)], [max(quality[2] - quality[0], 0.0)]],
            fmt="s" if point.name == "fp32" else "o",
            color=_BASE if point.name == "fp32" else _POINT,
            markersize=5,
            elinewidth=0.8,
            alpha=0.85,
        )
    for names, place in labels(points):
        axes.annotate(names, place, xytext=(5, 4), textcoords="offset points", fontsize=7)
    if far:
        left = "left out, far off: " + ", ".join(f"{point.name} ({point.quality[0]:.3g})" for point in far)
        axes.annotate(left, (0.01, 0.02), xycoords="axes fraction", fontsize=7)
    best = front(points, less_is_better=less)
    axes.plot(
        [point.cost[0] for point in best],
        [point.quality[0] for point in best],
        color=_FRONT,
        linewidth=1.2,
        linestyle="--",
        drawstyle="steps-post",
        label="nothing is both cheaper and better",
    )
    axes.set_xlabel(label)
    axes.set_title(measure + (", %" if measure in SHARES else ", less is better"))
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return to_svg(figure)


def sensitivity_chart(study: Plain) -> str:
    """Draw what quantising each operator alone leaves of the signal, the worst on top; nothing where not measured."""
    shown = [item for item in study["sensitivity"] if item["signal_to_noise"] is not None][:_BARS]
    if not shown:
        return ""
    figure, axes = new_figure(8.6, 0.7 + 0.22 * len(shown))
    axes.barh(range(len(shown)), [item["signal_to_noise"] for item in shown], color=_POINT, height=0.7)
    axes.set_yticks(range(len(shown)), [f"{item['node']} ({item['kind']})"[-60:] for item in shown], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("signal to quantisation noise of the output, dB: less is worse")
    return to_svg(figure)
