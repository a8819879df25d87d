"""What the whole suite prints at its end."""

from __future__ import annotations

from typing import Any


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the table of ONNX node cases, gathered from the reports, so that it comes from parallel workers too."""
    rows = [
        value
        for kind in ("passed", "failed")
        for report in terminalreporter.stats.get(kind, [])
        for name, value in report.user_properties
        if name == "onnx_case"
    ]
    if not rows:
        return
    from onnx_cases.coverage import table

    terminalreporter.section("ONNX node cases on the NumPy layers")
    for line in table(tuple(row) for row in sorted(rows)):
        terminalreporter.write_line(line)
