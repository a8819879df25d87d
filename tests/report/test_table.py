"""Tables as plain text: aligned, never wider than 100 columns, nothing cut off, nothing read as markup."""

from __future__ import annotations

import io

from unitrain.report.table import print_table


def _lines(*arguments: object, **options: object) -> list[str]:
    stream = io.StringIO()
    print_table(*arguments, stream=stream, **options)  # type: ignore[arg-type]  # handed on as they come
    return [line.rstrip() for line in stream.getvalue().splitlines()]


def test_columns_are_aligned_and_rules_divide_head_and_foot() -> None:
    lines = _lines(["name", "count"], [["a", "1"], ["long name", "1,000"]], right=["count"], foot=["total", "1,001"])
    assert [line.split() for line in lines if set(line) - {"─"}] == [
        ["name", "count"],
        ["a", "1"],
        ["long", "name", "1,000"],
        ["total", "1,001"],
    ]
    assert len({len(line) for line in lines}) == 1
    assert [index for index, line in enumerate(lines) if set(line) == {"─"}] == [1, 4]


def test_shapes_are_not_read_as_markup() -> None:
    assert _lines(["shape"], [["[batch, 3]"], ["[bold]"]])[2:] == ["[batch, 3]", "[bold]"]


def test_long_cells_go_on_in_the_next_line() -> None:
    lines = _lines(["name", "count"], [["x" * 150, "7"]], right=["count"])
    assert max(map(len, lines)) <= 100
    assert sum(line.count("x") for line in lines) == 150


def test_empty_columns_are_left_out() -> None:
    assert _lines(["name", "note"], [["a", ""], ["b", ""]])[0] == "name"
