"""Plain tables for the terminal: aligned columns, a rule under the head, no boxes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TextIO

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDTH = 100


def print_table(
    head: Sequence[str],
    rows: Sequence[Sequence[str | Text]],
    *,
    right: Sequence[str] = (),
    fixed: Sequence[str] = (),
    foot: Sequence[str] | None = None,
    stream: TextIO | None = None,
) -> None:
    """Print a table.

    On a terminal it takes the terminal's width and bold heads; elsewhere it is plain text of at most `WIDTH`
    columns. Cells too long for their column go on in the next line; nothing is cut off.

    Parameters
    ----------
    head
        Names of the columns.
    rows
        Cells, as many a row as there are columns; a `Text` brings its own style. Columns in which every cell is empty
        are left out.
    right
        Names of the columns to align right: numbers.
    fixed
        Names of other columns whose cells are never broken into lines.
    foot
        Cells of a last row, under a rule.
    stream
        Where to; standard output by default.
    """
    console = make_console(stream)
    used = [index for index in range(len(head)) if any(row[index] for row in rows)]
    table = Table(box=SIMPLE, show_edge=False, show_footer=foot is not None, pad_edge=False)
    for index in used:
        number = head[index] in right
        table.add_column(
            head[index],
            footer="" if foot is None else Text(foot[index]),
            justify="right" if number else "left",
            no_wrap=number or head[index] in fixed,
            overflow="fold",
        )
    for row in rows:
        # Text, not str: square brackets are shapes here, not markup.
        cells = (row[index] for index in used)
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in cells))
    console.print(table)


def make_console(stream: TextIO | None = None) -> Console:
    """Return a console for a stream, standard output by default: as wide as the terminal, or `WIDTH` without one."""
    output = stream or sys.stdout
    return Console(file=output, highlight=False, width=None if output.isatty() else WIDTH)
