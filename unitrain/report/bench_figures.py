"""The charts of a benchmark: roofline, sweep of sizes, times beside the baseline's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unitrain.report.figures import new_figure, to_svg

Plain = Mapping[str, Any]

# Colours that stay apart for colour-blind readers (Okabe & Ito 2008), and the marks beside them.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
_MARKS = "osD^vP*X"
# Points whose intensities lie within this factor share a label.
_NEAR = 1.4


def looks(cases: Sequence[Plain]) -> dict[str, tuple[str, str]]:
    """Return contender to colour and mark, the same in all charts."""
    names = dict.fromkeys(row["contender"] for case in cases for row in case["rows"])
    return {name: (_COLOURS[index % len(_COLOURS)], _MARKS[index % len(_MARKS)]) for index, name in enumerate(names)}


def roofline(cases: Sequence[Plain], ceiling: Plain, styles: Mapping[str, tuple[str, str]]) -> str:
    """Draw FLOP/s over FLOP a byte, under the roof min(peak, intensity * bandwidth); nothing without such cases."""
    shown = [case for case in cases if case["work"]["flops"] and any(row["seconds"] for row in case["rows"])]
    if not shown:
        return ""
    figure, axes = new_figure(8.6, 4.6)
    intensities = [case["work"]["flops"] / case["work"]["bytes"] for case in shown]
    ridge = ceiling["flops"] / ceiling["bandwidth"]
    ends = [min(*intensities, ridge) / 2, ridge, max(*intensities, ridge) * 3]
    axes.plot(
        ends,
        [min(ceiling["flops"], x * ceiling["bandwidth"]) / 1e9 for x in ends],
        color="#666666",
        linewidth=1.5,
        label=f"{ceiling['flops'] / 1e9:,.0f} GFLOP/s, {ceiling['bandwidth'] / 1e9:,.1f} GB/s",
    )
    labelled: set[str] = set()
    largest = max((_size(case) for case in shown if _is_product(case)), default=0)
    tops: list[tuple[float, float, str]] = []
    for case, intensity in zip(shown, intensities, strict=True):
        best = 0.0
        for row in case["rows"]:
            if not row["seconds"]:
                continue
            reached = case["work"]["flops"] / row["seconds"]["value"] / 1e9
            best = max(best, reached)
            name = row["contender"]
            colour, mark = styles[name]
            label = None if name in labelled else name
            labelled.add(name)
            axes.plot([intensity], [reached], mark, color=colour, markersize=6, alpha=0.85, label=label)
        # The sizes of the sweep lie in one line, and have a chart of their own: the largest alone is named.
        if not _is_product(case) or _size(case) == largest:
            tops.append((intensity, best, case["name"]))
    for x, y, text in _apart(tops):
        axes.annotate(text, (x, y), xytext=(0, 6), textcoords="offset points", fontsize=7, ha="center", color="#444444")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("arithmetic intensity, FLOP a byte")
    axes.set_title("GFLOP/s")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return to_svg(figure)


def _apart(points: Sequence[tuple[float, float, str]]) -> list[tuple[float, float, str]]:
    """Join the names of points of nearly one intensity, above the highest of them: they would lie on one another."""
    joined: list[tuple[float, float, list[str]]] = []
    for x, y, text in sorted(points):
        if joined and x < _NEAR * joined[-1][0]:
            first, top, names = joined[-1]
            joined[-1] = (first, max(top, y), [*names, text])
        else:
            joined.append((x, y, [text]))
    return [(x, y, "\n".join(names)) for x, y, names in joined]


def sweep(cases: Sequence[Plain], styles: Mapping[str, tuple[str, str]]) -> str:
    """Draw the GFLOP/s of matrix products over their sizes; nothing where there is one size only."""
    products = sorted(((_size(case), case) for case in cases if _is_product(case)), key=lambda pair: pair[0])
    if len(products) < 2:
        return ""
    figure, axes = new_figure(7.0, 3.4)
    for name, (colour, mark) in styles.items():
        points = [
            (size, *(case["work"]["flops"] / row["seconds"][key] / 1e9 for key in ("value", "low", "high")))
            for size, case in products
            for row in case["rows"]
            if row["contender"] == name and row["seconds"]
        ]
        if points:
            sizes, values, fast, slow = zip(*points, strict=True)
            axes.plot(sizes, values, color=colour, marker=mark, markersize=5, linewidth=1.5, label=name)
            axes.fill_between(sizes, slow, fast, color=colour, alpha=0.15, linewidth=0)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks([size for size, _ in products], [str(size) for size, _ in products])
    axes.minorticks_off()
    axes.set_xlabel("size of the matrices")
    axes.set_title("GFLOP/s of a matrix product")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return to_svg(figure)


def _is_product(case: Plain) -> bool:
    return str(case["name"]).startswith("matmul ")


def _size(case: Plain) -> int:
    return int(case["name"].split()[1])


def times(cases: Sequence[Plain], styles: Mapping[str, tuple[str, str]]) -> str:
    """Draw each case's times over the baseline's, with intervals, and the A/A band within which none is claimed."""
    shown = [case for case in cases if case["band"] is not None]
    if not shown:
        return ""
    figure, axes = new_figure(8.6, 1.1 + 0.34 * len(shown))
    places = list(range(len(shown)))[::-1]
    labelled: set[str] = set()
    axes.axvline(1.0, color="#999999", linewidth=0.8)
    for place, case in zip(places, shown, strict=True):
        band = case["band"]
        axes.barh(place, band - 1.0 / band, left=1.0 / band, height=0.7, color="#999999", alpha=0.25, linewidth=0)
        timed = [row for row in case["rows"] if row["seconds"]]
        for index, row in enumerate(timed):
            colour, mark = styles[row["contender"]]
            ratio = row["ratio"]
            y = place + 0.5 * ((len(timed) - 1) / 2 - index) / max(len(timed), 1)
            label = None if row["contender"] in labelled else row["contender"]
            labelled.add(row["contender"])
            axes.plot([ratio["low"], ratio["high"]], [y, y], color=colour, linewidth=1.2)
            axes.plot([ratio["value"]], [y], mark, color=colour, markersize=4.5, label=label)
    axes.set_xscale("log")
    axes.set_yticks(places, [case["name"] for case in shown], fontsize=8)
    axes.set_ylim(-0.6, len(shown) - 0.4)
    axes.xaxis.set_major_formatter(_plain_number)
    axes.set_xlabel(f"time over that of {shown[0]['baseline']}: left is faster; grey: the A/A twin")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return to_svg(figure)


def _plain_number(value: float, _: int) -> str:
    return f"{value:g}"
