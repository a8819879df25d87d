"""The NumPy layers, losses and optimizers against the node cases of ONNX, at the tolerance that each case states."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx_cases.coverage import OPERATORS, WITHOUT_CASES, outcomes, table
from onnx_cases.node_case import NodeCase, NotApplicable, Outputs, judge

from unitrain.spec.layers import LAYER_TYPES


@pytest.mark.parametrize("operator", OPERATORS)
def test_operator(operator: str, record_property: Callable[[str, object], None]) -> None:
    found = outcomes(operator)
    for outcome in found:
        record_property("onnx_case", [operator, outcome.status, outcome.reason])
    failed = [f"{outcome.case.name}: {outcome.reason}" for outcome in found if outcome.status == "failed"]
    assert not failed, "\n".join(failed)
    passed = sum(outcome.status == "passed" for outcome in found)
    least = OPERATORS[operator][0]
    assert passed >= least, f"{passed} cases of {operator} passed; with onnx 1.23 they were {least}"


def test_every_layer_is_run_on_a_case_or_says_why_not() -> None:
    run = {
        layer
        for operator in OPERATORS
        for outcome in outcomes(operator)
        if outcome.status == "passed"
        for layer in outcome.case.layers
    }
    assert run == set(LAYER_TYPES) - set(WITHOUT_CASES)


def _answering(outputs: Outputs) -> Callable[[NodeCase], Outputs]:
    return lambda case: outputs


def _declining(case: NodeCase) -> Outputs:
    raise NotApplicable("a reason")


@pytest.mark.parametrize(
    ("outputs", "status"),
    [
        ([np.array([1.0, 2.0], np.float32)], "passed"),
        ([np.array([1.0, 2.01], np.float32)], "failed"),
        ([np.array([1.0, np.nan], np.float32)], "failed"),
        ([np.array([1.0, 2.0])], "failed"),
        ([np.array([[1.0, 2.0]], np.float32)], "failed"),
        ([], "failed"),
        ([None], "failed"),
    ],
)
def test_a_case_passes_with_its_own_outputs_alone(outputs: Outputs, status: str) -> None:
    case = NodeCase("case", "Relu", {}, [], [np.array([1.0, 2.0], np.float32)], 1e-3, 1e-7)
    assert judge(case, (_declining, _answering(outputs))).status == status
    assert judge(case, (_answering(outputs), _declining)).status == status


def test_a_layer_that_stumbles_is_a_failure() -> None:
    case = NodeCase("case", "Relu", {}, [np.ones((2, 3), np.float32)], [], 1e-3, 1e-7)
    outcome = judge(case, (lambda case: [case.apply({"type": "softmax", "axis": 5}, case.numbers(0)).output],))
    assert outcome.status == "failed"
    assert "axis 5 is outside" in outcome.reason


def test_a_case_that_no_way_expresses_keeps_the_first_reason() -> None:
    case = NodeCase("case", "Relu", {}, [], [], 1e-3, 1e-7)
    outcome = judge(case, (_declining,))
    assert (outcome.status, outcome.reason) == ("not applicable", "a reason")


def test_the_table_counts_and_gathers_reasons() -> None:
    lines = table([("Relu", "passed", ""), ("Pad", "not applicable", "wrap"), ("Pad", "not applicable", "wrap")])
    assert lines[0] == "1 passed, 2 not applicable, 0 failed"
    assert [line.split() for line in lines[2:]] == [
        ["Relu", "1", "0", "0"],
        ["Pad", "0", "2", "0", "2", "x", "wrap"],
    ]
