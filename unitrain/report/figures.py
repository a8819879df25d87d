"""Figures for pages: drawn with Matplotlib, written as SVG that stands in the page itself."""

from __future__ import annotations

import io
from typing import Any

from unitrain.spec.errors import InputError


def check_report_packages() -> None:
    """See that what a page is made with is there. Raises `InputError` with the line that installs it."""
    try:
        import jinja2  # noqa: F401  # only to find out early whether it is there
        import matplotlib  # noqa: F401  # as above
    except ModuleNotFoundError as error:
        raise InputError(
            f"a report needs {error.name}, which is not installed", hint="pip install 'unitrain[report]'"
        ) from None


def new_figure(width: float = 4.6, height: float = 2.9) -> tuple[Any, Any]:
    """Make a figure and its axes without pyplot, which would keep global state and look for a screen."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def to_svg(figure: Any) -> str:
    """Write a figure as an ``<svg>`` element, through which the page is seen, light or dark."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    text = buffer.getvalue()
    return text[text.index("<svg") :]
