"""What holds for the whole suite: it leaves the user's cache alone, and prints a table at its end."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Keep what runs find in a folder of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNITRAIN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


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
