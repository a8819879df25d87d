"""Table, comparison and page of a benchmark, drawn from plain values written by hand."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from unitrain.report.bench_figures import _apart, looks, roofline, sweep, times
from unitrain.report.bench_page import render_bench_page
from unitrain.report.bench_table import BenchTable, print_comparison, row_cells, threads_text
from unitrain.report.quantities import bytes_text, number, seconds_text

CEILING = {"flops": 100e9, "bandwidth": 10e9, "empty": {"numpy": 1e-6}}


def interval(value: float, low: float | None = None, high: float | None = None) -> dict[str, float]:
    return {"value": value, "low": low or 0.9 * value, "high": high or 1.2 * value}


def row(contender: str, seconds: float | None, **more: Any) -> dict[str, Any]:
    timed = seconds is not None
    return {
        "contender": contender,
        "backend": contender.split()[0],
        "device": "cpu",
        "seconds": interval(seconds) if timed else None,
        "fastest": seconds,
        "calls": 3,
        "ratio": interval(2.0) if timed else None,
        "claim": "slower" if timed else "",
        "first_seconds": 0.5 if timed else None,
        "memory": 3 << 20,
        "error": 1e-7,
        "why": "memory-bound: 80 % of the 10.0 GB/s of main memory" if timed else "",
        "failure": "" if timed else "wrong: off by <script>",
        "extra": {},
        **more,
    }


def case(part: str, name: str, *rows: dict[str, Any], flops: float = 2e9, samples: int = 0) -> dict[str, Any]:
    work = {"flops": flops, "bytes": 1e8, "operations": 1, "samples": samples}
    timed = any(item["seconds"] for item in rows)
    return {
        "part": part,
        "name": name,
        "about": "float32 2 x 2",
        "work": work,
        "device": "cpu",
        "rounds": 15 if timed else 0,
        "baseline": rows[0]["contender"] if timed else "",
        "twin": interval(1.0) if timed else None,
        "band": 1.25 if timed else None,
        "rows": list(rows),
    }


def report() -> dict[str, Any]:
    return {
        "parts": ["ops", "inference"],
        "machine": {"processor": "A & B", "processors": 2, "memory": 8 << 30, "caches": {"L3": "32M"}},
        "versions": {"numpy": "2.4"},
        "threads": {"numpy": 2, "torch": 2},
        "seed": 0,
        "ceilings": {"cpu": CEILING},
        "cases": [
            case("ops", "matmul 64", row("numpy", 0.1, claim="baseline"), row("torch", 0.2)),
            case("ops", "matmul 16", row("numpy", 0.01, claim="baseline"), row("torch", None)),
            case("ops", "nobody", row("numpy", None)),
            case(
                "inference", "mlp batch 128", row("numpy", 0.1, claim="baseline"), row("torch eager", 0.05), samples=128
            ),
        ],
        "notes": ["keras is left out: <not> installed"],
        "seconds": {"ops": 12.0, "inference": 3.0},
        "command": "unitrain bench --html 'a b.html'",
        "format": 1,
    }


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.00123, "0.0012"),
        (0.0534, "0.053"),
        (1.254, "1.25"),
        (9.996, "10.0"),
        (34.14, "34.1"),
        (1249.7, "1,250"),
    ],
)
def test_numbers_have_about_three_digits(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (5e-9, "5.00 ns"),
        (85.3e-6, "85.3 us"),
        (1.02e-3, "1.02 ms"),
        (0.9996, "1.00 s"),
        (2.1, "2.10 s"),
        (125, "125 s"),
    ],
)
def test_times_have_the_unit_that_fits(seconds, text):
    assert seconds_text(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1536, "1.5 KiB"),
        (200 * 1024, "200 KiB"),
        (3 << 20, "3.0 MiB"),
        (5 << 40, "5120 GiB"),
    ],
)
def test_bytes_have_the_unit_that_fits(count, text):
    assert bytes_text(count) == text


def test_cells_by_hand():
    one = case("inference", "mlp", row("torch", 0.05), samples=128)
    assert row_cells(one, one["rows"][0]) == {
        "time": "50.0 ms",
        "±": "20 %",
        "ratio": "2.00",
        "": "slower",
        "GFLOP/s": "40.0",  # 2e9 / 0.05
        "GB/s": "2.00",  # 1e8 / 0.05
        "samples/s": "2,560",  # 128 / 0.05
        "first": "500 ms",
        "memory": "3.0 MiB",
    }


def test_threads_are_said_together_only_where_they_are_equal():
    assert threads_text({"numpy": 2, "torch": 2}) == "2 threads each: numpy, torch"
    assert threads_text({"numpy": 1}) == "1 thread each: numpy"
    assert threads_text({"numpy": 1, "torch": 2}) == "threads: numpy 1, torch 2"


def test_the_table_fits_and_tells_all():
    stream = io.StringIO()
    table = BenchTable(stream)
    for one in report()["cases"]:
        table.print_case(one)
    table.print_end(report())
    text = stream.getvalue()
    assert all(len(line) <= 100 for line in text.splitlines())
    assert text.count("ops on cpu") == 1
    assert "inference on cpu" in text
    assert "A/A twin within 1.25" in text
    assert "wrong: off by <script>" in text
    assert "at best 100 GFLOP/s and 10.0 GB/s" in text
    assert "note: keras is left out: <not> installed" in text


def test_the_comparison_fits_and_tells_all():
    stream = io.StringIO()
    rows = [
        {
            "part": "training",
            "case": "lenet5 to 85 % of fashion_mnist",
            "side": "torch compile",
            "first": 1.0,
            "second": 2.0,
            "ratio": 2.0,
            "low": 1.8,
            "high": 2.2,
            "band": 1.1,
            "claim": "slower",
        }
    ]
    side = {"file": "a.json", "machine": "X, 2 processors"}
    print_comparison(
        {"first": side, "second": side, "differences": ["torch 2 and 3"], "rows": rows, "summary": ["mean 2.00"]},
        stream,
    )
    text = stream.getvalue()
    assert all(len(line) <= 100 for line in text.splitlines())
    for part in ("differs: torch 2 and 3", "1.00 s", "2.00 s", "1.10", "slower", "mean 2.00"):
        assert part in text


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = {name: value or "" for name, value in attrs}
        self.sources += [values[name] for name in ("src", "xlink:href") if name in values]
        if tag == "a":
            self.links.append(values["href"])
        self.ids.add(values.get("id", ""))


def test_the_page_needs_nothing_else_and_escapes():
    page = render_bench_page(report())
    reader = _Reader()
    reader.feed(page)
    assert "script" not in reader.tags
    assert "link" not in reader.tags
    assert all(source.startswith("#") for source in reader.sources)
    assert {link[1:] for link in reader.links} <= reader.ids
    assert reader.tags.count("figure") == 4  # times, roofline and sweep of the operations, times of inference
    assert "wrong: off by &lt;script&gt;" in page
    assert "A &amp; B" in page
    assert "unitrain bench --html" in page
    assert "2,560" in page  # of torch
    assert "1,280" in page  # samples a second of numpy


def test_charts_show_what_there_is():
    cases = report()["cases"]
    styles = looks(cases)
    assert list(styles) == ["numpy", "torch", "torch eager"]
    assert len(set(styles.values())) == 3
    drawn = roofline(cases[:2], CEILING, styles)
    assert "<!-- numpy -->" in drawn
    assert "<!-- 100 GFLOP/s, 10.0 GB/s -->" in drawn
    assert roofline([case("training", "x", row("numpy", 1.0), flops=0.0)], CEILING, styles) == ""
    assert sweep(cases[:1], styles) == ""
    assert len(re.findall("<!-- (?:16|64) -->", sweep(cases[:2], styles))) == 2
    assert times(cases[2:3], styles) == ""


def test_labels_of_neighbours_are_joined():
    points = [(1.0, 5.0, "a"), (1.3, 9.0, "b"), (10.0, 2.0, "c")]
    assert _apart(points) == [(1.0, 9.0, "a\nb"), (10.0, 2.0, "c")]
