"""The mutation suite: every planted fault must be caught, placed, and explained where there is a rule for it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from faults.outcome import FAULTS, Outcome, outcome, run

# Faults that are caught and not placed, and why.
NOT_PLACED = {
    "epsilon beside the deviation": "in training it moves results by a millionth, less than torch's batch norm may "
    "lose over 672 terms; the gradient of the whole model shows it",
}
BY_NAME = {fault.name: fault for fault in FAULTS}
# One model stands for all faults that are planted into it.
MODELS = {str((fault.layers, fault.shape, fault.optimizer, fault.loss, fault.backend)): fault for fault in FAULTS}


@cache
def found(name: str) -> Outcome:
    return outcome(BY_NAME[name])


@pytest.mark.parametrize("name", BY_NAME)
def test_a_fault_is_caught_placed_and_explained(name: str) -> None:
    result = found(name)
    assert result.caught
    # Not by an error of the planting, whose functions no longer have the shape of those that they replace.
    assert not any(error in result.words for error in ("TypeError", "AttributeError")), result.words
    assert result.located == (name not in NOT_PLACED), result.words
    assert result.diagnosed == bool(result.fault.words), result.words


@pytest.mark.parametrize("key", MODELS, ids=lambda key: MODELS[key].name)
def test_the_same_model_without_the_fault_passes(key: str) -> None:
    report = run(MODELS[key], planted=False)
    assert report.passed, [str(cause) for cause in report.causes]


def test_there_are_enough_faults_and_their_names_differ() -> None:
    assert len(BY_NAME) == len(FAULTS) >= 60
    assert {fault.backend for fault in FAULTS} >= {"numpy", "keras", "torch"}
    assert len(NOT_PLACED) <= 0.1 * len(FAULTS)


def test_the_documented_table_lists_these_faults() -> None:
    page = (Path(__file__).parents[2] / "docs" / "mutations.md").read_text()
    rows = [line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| ") and " | " in line]
    assert rows[1:] == [fault.name for fault in FAULTS]
