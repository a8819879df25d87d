"""Every promise names the test that holds it, and the test is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "promises.md"
TEXT = PAGE.read_text(encoding="utf-8")
PROMISES = re.split(r"^- ", TEXT.partition("## What is not promised")[0], flags=re.MULTILINE)[1:]
NAMED = re.compile(r"\[(test_\w+)\]\((\S+?)\)")


def functions_of(file: Path) -> set[str]:
    return {node.name for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("promise", PROMISES, ids=lambda text: text.split("[")[-1].partition("]")[0])
def test_a_promise_ends_with_the_name_of_a_test_that_is_there(promise):
    first = promise.partition("\n\n")[0]
    sentence, bracket, _ = first.partition("[test_")
    assert bracket, "no test is named"
    assert sentence.strip().endswith(".")
    assert sentence.count(". ") <= 1, "one sentence, one test"
    named = NAMED.findall(first)
    assert len(named) == 1
    name, place = named[0]
    assert name in functions_of((PAGE.parent / place).resolve())


def test_there_are_promises_in_every_section():
    sections = re.findall(r"^## (.+)$", TEXT, re.MULTILINE)
    assert sections == ["Going on", "Checkpoints", "Faults", "Files of strangers", "What is not promised"]
    assert len(PROMISES) >= 30
