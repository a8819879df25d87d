"""A section of the checks on a GPU: what it is told, and what it finds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Found:
    """What a section found: lines of Markdown, and whether all that has to hold does."""

    lines: list[str]
    passed: bool = True


@dataclass(frozen=True)
class Options:
    """What the command line said."""

    device: str = "cuda:0"
    rounds: int = 9
