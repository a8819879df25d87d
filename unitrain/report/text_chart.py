"""Curves over one another in plain text, for terminals and logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

WIDTH, HEIGHT = 64, 12
BOTH = "*"


def text_chart(title: str, curves: Mapping[str, Sequence[tuple[int, float]]]) -> list[str]:
    """Draw curves, each with the first letters of the alphabet as its mark, ``*`` where two meet.

    Parameters
    ----------
    title
        Stands above.
    curves
        Name to points (epoch, value); at least one point in all, values finite.
    """
    points = [point for curve in curves.values() for point in curve]
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    low, high = min(y for _, y in points), max(y for _, y in points)
    grid = [[" "] * WIDTH for _ in range(HEIGHT)]
    for mark, curve in zip("ABCDEFGH", curves.values(), strict=False):
        for x, y in curve:
            column = round((x - left) / max(right - left, 1) * (WIDTH - 1))
            row = round((high - y) / (high - low) * (HEIGHT - 1)) if high > low else HEIGHT // 2
            grid[row][column] = mark if grid[row][column] in (" ", mark) else BOTH
    scale = {0: f"{high:.4g}", HEIGHT - 1: f"{low:.4g}"}
    lines = [f"{scale.get(row, ''):>10} |{''.join(cells).rstrip()}" for row, cells in enumerate(grid)]
    ends = f"{left}{str(right).rjust(WIDTH - len(str(left)))}"
    return [title, *lines, " " * 11 + "+" + "-" * WIDTH, " " * 12 + ends + "  epoch"]
