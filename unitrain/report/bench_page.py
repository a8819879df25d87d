"""The page of a benchmark."""

from __future__ import annotations

from typing import Any


def render_bench_page(report: dict[str, Any]) -> str:
    """Draw the page."""
    raise NotImplementedError
