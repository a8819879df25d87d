"""The report of a run: one self-contained HTML page with curves, figures and settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unitrain.report.figures import check_report_packages, new_figure, to_svg
from unitrain.report.page import fill_page

# Colours that stay apart for colour-blind readers (Okabe & Ito 2008).
_TRAINING, _VALIDATION = "#0072B2", "#D55E00"


def render_run_page(
    title: str,
    facts: Sequence[tuple[str, str]],
    history: Sequence[Mapping[str, Any]],
    results: Sequence[tuple[str, Mapping[str, Any]]],
    classes: Sequence[str],
    documents: Sequence[tuple[str, str]],
) -> str:
    """Draw the page.

    Parameters
    ----------
    title
        Name of the run.
    facts
        Label and text of what is worth knowing at a glance.
    history
        The lines of ``metrics.jsonl``: one mapping an epoch with ``training`` and ``validation`` values.
    results
        Name of a part of the data and the values measured on it.
    classes
        Names of the classes, for the axes of a confusion matrix; empty when there are none.
    documents
        File name and text of what is shown in full: recipe, model, environment.

    Raises
    ------
    InputError
        Matplotlib or Jinja2 is not installed.
    """
    check_report_packages()
    matrices = [
        (f"{part}: {label}", value)
        for part, values in results
        for label, value in values.items()
        if isinstance(value, list) and isinstance(value[0], list)
    ]
    return fill_page(
        "run.html",
        title=title,
        facts=facts,
        curves=[_curve(label, history) for label in _labels(history)],
        rate=_rate_curve(history),
        results=[(part, _numbers(values)) for part, values in results],
        matrices=[(name, _confusion(value, classes)) for name, value in matrices],
        documents=documents,
    )


def write_run_page(path: Path, page: str) -> None:
    """Write the page."""
    path.write_text(page, encoding="utf-8")


def _labels(history: Sequence[Mapping[str, Any]]) -> list[str]:
    if not history:
        return []
    first = {**history[0]["training"], **history[0]["validation"]}
    return [label for label, value in first.items() if isinstance(value, (int, float))]


def _numbers(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Write the numbers; of a list with one for each class, each."""
    single = {label: value for label, value in values.items() if not isinstance(value, list)}
    for label, value in values.items():
        if isinstance(value, list) and not isinstance(value[0], list):
            single |= {f"{label}, class {index}": number for index, number in enumerate(value)}
    return [(label, f"{value:.5g}") for label, value in single.items() if isinstance(value, (int, float))]


def _curve(label: str, history: Sequence[Mapping[str, Any]]) -> str:
    """Draw training and validation values of one label against the epoch, as SVG."""
    figure, axes = new_figure()
    for part, colour in (("training", _TRAINING), ("validation", _VALIDATION)):
        points = [(line["epoch"], line[part].get(label)) for line in history]
        known = [(epoch, value) for epoch, value in points if isinstance(value, (int, float))]
        if known:
            epochs, values = zip(*known, strict=True)
            marker = "o" if len(known) < 30 else None
            axes.plot(epochs, values, color=colour, label=part, marker=marker, markersize=3, linewidth=1.5)
    best = [line["epoch"] for line in history if line.get("best")]
    if best:
        axes.axvline(best[-1], color="#999999", linestyle=":", linewidth=1, label="kept")
    axes.set_xlabel("epoch")
    axes.set_title(label)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False)
    return to_svg(figure)


def _rate_curve(history: Sequence[Mapping[str, Any]]) -> str:
    if not history:
        return ""
    figure, axes = new_figure()
    axes.plot([line["epoch"] for line in history], [line["learning_rate"] for line in history], color="#009E73")
    axes.set_xlabel("epoch")
    axes.set_title("learning rate")
    axes.xaxis.get_major_locator().set_params(integer=True)
    return to_svg(figure)


def _confusion(matrix: list[list[float]], classes: Sequence[str]) -> str:
    """Draw a confusion matrix, rows true and columns predicted, shaded by the share of the row."""
    size = len(matrix)
    names = list(classes) if len(classes) == size else [str(index) for index in range(size)]
    shares = [[cell / max(sum(row), 1e-12) for cell in row] for row in matrix]
    side = min(2.2 + 0.42 * size, 9.0)
    figure, axes = new_figure(side, side)
    axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    axes.set_xticks(range(size), names, rotation=45, ha="right")
    axes.set_yticks(range(size), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if size <= 20:
        for i, row in enumerate(matrix):
            for j, cell in enumerate(row):
                colour = "white" if shares[i][j] > 0.5 else "black"
                axes.text(j, i, f"{cell:g}", ha="center", va="center", fontsize=7, color=colour)
    return to_svg(figure)
