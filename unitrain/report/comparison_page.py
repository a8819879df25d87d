"""The page that holds runs side by side: differing settings, and curves over one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from unitrain.report.figures import check_report_packages, new_figure, to_svg
from unitrain.report.page import fill_page

# Colours that stay apart for colour-blind readers (Okabe & Ito 2008).
_COLOURS = ("#0072B2", "#D55E00")


def render_comparison_page(
    names: Sequence[str],
    rows: Sequence[Sequence[str]],
    curves: Mapping[str, Mapping[str, Sequence[tuple[int, float]]]],
) -> str:
    """Draw the page.

    Parameters
    ----------
    names
        Of the runs.
    rows
        Field, and its value in each run.
    curves
        Title to the curve of each run: points (epoch, value).

    Raises
    ------
    InputError
        Matplotlib or Jinja2 is not installed.
    """
    check_report_packages()
    figures = [_figure(title, one) for title, one in curves.items()]
    return fill_page("comparison.html", names=names, rows=rows, curves=figures)


def _figure(title: str, curves: Mapping[str, Sequence[tuple[int, float]]]) -> str:
    figure, axes = new_figure()
    for (name, points), colour in zip(curves.items(), _COLOURS, strict=False):
        if points:
            epochs, values = zip(*points, strict=True)
            axes.plot(epochs, values, color=colour, label=name, linewidth=1.5, marker="o", markersize=3)
    axes.set_xlabel("epoch")
    axes.set_title(title)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False, fontsize=7)
    return to_svg(figure)
