"""Terminal table and page of a verification, drawn from plain values whose verdicts are written by hand."""

from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from unitrain.report.verdicts import number, ratio_text, share, summary_line, worst
from unitrain.report.verify_page import heat_style, render_verify_page
from unitrain.report.verify_table import bar, print_verification


def finding(part: str, ratio: float | None, **more: Any) -> dict[str, Any]:
    """Make a finding; its largest error is that of `ratio`, and no ratio says that it is infinite."""
    bound = more.get("bound", 4.0)
    return {
        "backend": "torch",
        "level": "forward",
        "part": part,
        "tensor": "output",
        "mode": "training",
        "isolated": True,
        "passed": ratio is not None and ratio <= bound,
        "ratio": ratio,
        "max_ratio": ratio,
        "bound": bound,
        "reason": "",
        "excuse": "",
        **more,
    }


def report(findings: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    layers = {item["part"]: "dense" for item in findings if item["part"] not in ("optimizer", "model")}
    return {
        "source": "net.yaml",
        "passed": all(item["passed"] or item["excuse"] for item in findings),
        "subject": "net",
        "backends": sorted({item["backend"] for item in findings}),
        "devices": {},
        "precision": "float32",
        "levels": ["forward"],
        "seed": 0,
        "data": "batches of 16 samples",
        "findings": findings,
        "causes": [],
        "trajectories": [],
        "layers": layers,
        "notes": [],
        "seconds": {"forward": 1.25},
        "versions": {"torch": "2.9"},
        **more,
    }


def printed(plain: dict[str, Any], *, every: bool = False, encoding: str = "utf-8") -> list[str]:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    print_verification(plain, every=every, stream=stream)
    stream.flush()
    return stream.buffer.getvalue().decode(encoding).splitlines()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.004, "<.01"),
        (0.5, "0.50"),
        (3.999, "4.00"),
        (9.99, "9.99"),
        (9.999, "10.0"),
        (42.25, "42.2"),
        (99.99, "100"),
        (9999.4, "9999"),
        (12345.0, "1e4"),
        (2.6e12, "3e12"),
    ],
)
def test_ratios_take_five_characters(value, text):
    assert number(value) == text
    assert len(text) <= 5


def test_the_error_nearer_to_its_bound_counts():
    # The largest error may reach twice the bound.
    by_rms = finding("a", 3.0, max_ratio=5.0)
    by_largest = finding("a", 3.0, max_ratio=7.0)
    assert (share(by_rms), ratio_text(by_rms)) == (0.75, "3.00/4")
    assert (share(by_largest), ratio_text(by_largest)) == (0.875, "7.00/8")
    assert ratio_text(finding("a", None)) == "inf"
    assert worst([by_rms, by_largest]) is by_largest


def test_failures_come_before_excused_ones_before_large_ratios():
    excused = finding("a", 900.0, excuse="flip in relu")
    failing = finding("b", 5.0)
    assert worst([finding("c", 3.9), excused, failing]) is failing
    assert worst([finding("c", 3.9), excused]) is excused


@pytest.mark.parametrize(("value", "drawn"), [(1.0, "█████"), (0.1, "██▌  "), (0.01, "     "), (0.0, "     ")])
def test_bars_are_logarithmic(value, drawn):
    assert bar(value, wide=True) == drawn
    assert bar(value, wide=False) == {"█████": "#####", "██▌  ": "###  "}.get(drawn, drawn)


def test_the_table_fits_whatever_the_names_are():
    names = [f"encoder.block{number:02}.attention.output_projection" for number in range(30)]
    findings = [
        finding(name, ratio, backend=backend)
        for name, ratio in zip(names, [123456.0, None, *[1.0] * 28], strict=True)
        for backend in ("numpy", "keras", "torch", "onnx")
    ]
    causes = [
        {"backend": "torch", "part": name, "kind": "dense", "level": "forward", "text": f"torch dense at '{name}'"}
        for name in names[:8]
    ]
    lines = printed(report(findings, causes=causes))
    assert max(map(len, lines)) <= 100
    assert "".join(lines).count("FAIL") == 8 + 1
    assert lines[-1] == "FAIL net"
    assert "and 18 more with smaller ratios; --all shows them" in lines
    assert any(line.startswith("  and 2 more (--all shows their tensors)") for line in lines)
    every = "\n".join(printed(report(findings, causes=causes), every=True))
    assert "more" not in every
    assert every.index("block02") < every.index("block29")


def test_a_cause_stands_before_its_echoes():
    findings = [finding("late", 9e5, isolated=False), finding("early", 50.0), finding("fine", 1.0)]
    cause = {"backend": "torch", "part": "early", "kind": "dense", "level": "forward", "text": "torch dense at 'early'"}
    lines = printed(report(findings, causes=[cause]))
    rows = [line.split()[0] for line in lines if line.startswith(("late", "early", "fine"))]
    assert rows == ["early", "late", "fine"]
    place = lines.index("  torch dense at 'early'")
    assert lines[place + 1] == "    output (training, by itself): 50.0/4"


def test_reasons_stand_where_there_is_no_ratio():
    one = finding("a", None, reason="NaN stands at [0, 1]")
    cause = {"backend": "torch", "part": "a", "kind": "dense", "level": "forward", "text": "torch dense at 'a'"}
    assert "    output (training, by itself): NaN stands at [0, 1]" in printed(report([one], causes=[cause]))


def test_excused_failures_are_counted_and_do_not_fail():
    plain = report([finding("a", 50.0, excuse="flip in relu"), finding("b", 2.0)])
    lines = printed(plain)
    assert lines[-1] == "PASS net"
    assert "1 tensors excused, torch: flip in relu" in lines
    assert summary_line(plain) == "2 tensors compared, worst ratio 2.00 of 4: b, output on torch"


def test_plain_characters_where_the_terminal_has_no_others():
    text = "\n".join(printed(report([finding("a", 1.0)]), encoding="ascii"))
    assert "####" in text


def trajectory(backend: str, outcome: str, distance: list[float | None], **more: Any) -> dict[str, Any]:
    steps = list(range(1, len(distance) + 1))
    flips = [0] * len(distance) if outcome else []
    losses = [1.0 / step for step in steps]
    return {
        "backend": backend, "outcome": outcome, "steps": steps, "distance": distance, "flips": flips, "losses": losses,
        **more,
    }  # fmt: skip


RUNS = [
    trajectory("numpy32", "", [1e-6, 2e-6, 3e-6]),
    trajectory("moved 1", "", [1e-7, 0.0, 2e-7]),
    trajectory("moved 2", "", [2e-7, None, 3e-7]),
    trajectory("torch", "PASS until a flip at step 2 in relu1", [1e-6, 5e-3, None], flips=[0, 3, 1]),
    trajectory("keras", "FAIL", [], steps=[], flips=[], losses=[]),
]


def test_training_runs_are_listed_with_their_yardsticks_last():
    lines = printed(report([finding("a", 1.0)], trajectories=RUNS))
    place = next(index for index, line in enumerate(lines) if line.startswith("3 steps"))
    rows = [re.split(r"\s{2,}", line.strip()) for line in lines[place + 2 : place + 7]]
    assert rows == [
        ["torch", "PASS until a flip at step 2 in relu1", "-", "4"],
        ["keras", "FAIL", "-"],
        ["numpy32", "a yardstick", "3.0e-06"],
        ["moved 1", "a yardstick", "2.0e-07"],
        ["moved 2", "a yardstick", "3.0e-07"],
    ]


class Page(HTMLParser):
    """Collects the fields of the heat map and the tags that are open, to see that all are closed."""

    VOID = frozenset({"meta", "input", "br", "use", "path"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fields: list[dict[str, str | None]] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "td" and "aria-label" in given:
            self.fields.append(given)
        if "svg" not in self.open:
            self.ids += [given["id"]] if given.get("id") else []
            self.targets += [given["href"]] if tag == "a" and given.get("href") else []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_stands_alone_and_names_everything():
    findings = [
        finding("conv", 1.0),
        finding("conv", 0.4, level="backward", tensor="gradient by kernel"),
        finding("norm", 700.0),
        finding("norm", 900.0, isolated=False, excuse="flip in relu"),
        finding("norm", None, backend="keras", reason="NaN stands at [3]", passed=False),
        *(finding("optimizer", step, level="step", tensor=f"change of w, update {step}") for step in (1, 3, 2)),
    ]
    cause = {
        "backend": "torch", "part": "norm", "kind": "batch_norm", "level": "forward",
        "text": "torch batch_norm at layer 'norm': matches with <epsilon>",
    }  # fmt: skip
    text = render_verify_page([report(findings, causes=[cause], trajectories=RUNS)], "unitrain verify 'a b.yaml'")
    page = Page(text)
    assert page.open == []
    assert not re.search(r'(?:src|href)="(?!#)(?!.*w3)', re.sub(r"<svg.*?</svg>", "", text, flags=re.DOTALL))
    assert "matches with &lt;epsilon&gt;" in text
    assert "unitrain verify &#39;a b.yaml&#39;" in text
    assert "torch 2.9" in text
    assert text.count("<svg") == 2
    titles = {str(field["title"]): str(field["class"]) for field in page.fields}
    assert titles["torch: FAIL, output, training: ratio 700/4"].split()[0] == "f1"
    assert titles["torch: excused, flip in relu, output, training: ratio 900/4"].split()[0] == "flip"
    assert titles["keras: FAIL, output, training: NaN stands at [3]"].split()[0] == "f3"
    # The worst of three updates stands for the series.
    assert titles["torch: change of w, update 3, training: ratio 3.00/4, worst of 3"].split()[0] == "h9"
    assert {target.removeprefix("#") for target in page.targets} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


def test_several_reports_share_a_page():
    plain = [report([finding("a", ratio)], subject=name) for name, ratio in (("first", 1.0), ("second", 99.0))]
    text = render_verify_page(plain, "unitrain verify")
    page = Page(text)
    assert "1 of 2 passed" in text
    assert {"#r0", "#r1"} <= set(page.targets)
    assert len(page.ids) == len(set(page.ids))


def test_a_page_of_nothing_can_be_drawn():
    assert Page(render_verify_page([report([])], "unitrain verify")).open == []
    assert printed(report([]))[-1] == "PASS net"


@pytest.mark.parametrize(
    ("ratio", "style"), [(0.0, "h0"), (0.04, "h0"), (0.4, "h5"), (4.0, "h10"), (4.1, "f0"), (400.0, "f1"), (4e6, "f3")]
)
def test_colours_follow_the_logarithm(ratio, style):
    assert heat_style(finding("a", ratio)) == style


def test_the_plain_values_are_those_of_a_report():
    """The tables above are made by hand: they must have the fields that a report has."""
    from unitrain.verify.findings import Finding, Report, TensorName, Trajectory
    from unitrain.verify.verdict import Verdict

    name = TensorName("forward", "a", "output", "training")
    real = Report(
        "net", ("torch",), "float32", ("forward",), 0,
        findings=[Finding("torch", name, Verdict(False, float("inf"), 1.0, 4.0))],
        trajectories=[Trajectory("torch", (1,), (0.1,), (1.0,))],
    ).to_plain()  # fmt: skip
    json.dumps(real, allow_nan=False)
    made = report([finding("a", 1.0)], trajectories=RUNS)
    assert set(made) == {"source", *real}
    assert set(made["findings"][0]) == set(real["findings"][0])
    assert set(RUNS[0]) == set(real["trajectories"][0])
