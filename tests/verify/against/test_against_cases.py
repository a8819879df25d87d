"""No false alarms: what our backends build of each layer is a user's model like any other, and passes."""

from __future__ import annotations

from importlib import import_module

import pytest
from conformance.cases import CASES, case_graph
from verify.against.against_specs import against, told

from unitrain.api import build
from unitrain.verify.subject import model_subject

# Every layer, options in turn; Keras takes longer.
STEPS = {"torch": 2, "onnx": 3, "keras": 6}


def chosen(step: int) -> list:
    """Take the first case of each layer, and of all cases every ``step``-th."""
    kinds = {type(case.layer): case for case in reversed(CASES)}
    found = [case for number, case in enumerate(CASES) if number % step == 0 or kinds[type(case.layer)] is case]
    # Numbers that are rounded to integers' levels have no counterpart in other people's layers.
    return [case for case in found if case.layer.type != "fake_quantize" and not rounds(case.layer)]


def rounds(layer) -> bool:
    return getattr(layer, "kernel_quantizer", None) is not None


@pytest.mark.parametrize("backend", STEPS)
def test_single_layers_pass(backend):
    wrap = import_module(f"unitrain.backends.{backend}.foreign").wrap
    wrong = {}
    for case in chosen(STEPS[backend]):
        subject = model_subject("case", case_graph(case))
        report = against(subject, wrap(build(subject.graph, backend, weights=subject.weights)), layout="nhwc")
        isolated = any(item.name.isolated for item in report.findings)
        if not report.passed or not isolated:
            wrong[case.label] = told(report), report.notes
    assert not wrong
