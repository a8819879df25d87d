"""The frameworks' own ONNX exporters, held to the reference within `verify`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from unitrain.spec.errors import InputError
from unitrain.verify import exporters
from unitrain.verify.exporters import exporters_checked
from unitrain.verify.session import verify
from unitrain.verify.source import read_subject

LENET = Path(__file__).parents[2] / "models" / "lenet5.yaml"
EXPORTERS = pytest.mark.parametrize(("framework", "package"), [("torch", "onnxscript"), ("keras", "tf2onnx")])


@EXPORTERS
def test_a_frameworks_own_exporter_writes_what_the_reference_computes(framework, package):
    pytest.importorskip(package, reason=f"{framework}'s ONNX exporter needs {package}")
    findings, notes = exporters_checked(read_subject(LENET), (framework,))
    assert notes == []
    assert [item.name.tensor for item in findings] == [
        f"logits, batch of {size}, ONNX by {framework}'s exporter" for size in (1, 5)
    ]
    assert all(item.verdict.passed and item.backend == framework for item in findings)


@EXPORTERS
def test_an_exporter_that_writes_other_weights_fails(framework, package, monkeypatch):
    pytest.importorskip(package, reason=f"{framework}'s ONNX exporter needs {package}")
    right = exporters.write

    def write(graph, weights, target, path, options):
        wrong = {**weights, "logits.bias": weights["logits.bias"] + np.arange(10, dtype="float32") / 1e4}
        return right(graph, wrong, target, path, options)

    monkeypatch.setattr(exporters, "write", write)
    report = verify(read_subject(LENET), {framework: "cpu", "onnx": "cpu"}, levels=("transfer",), exporters=True)
    assert not report.passed
    assert {item.backend for item in report.failures} == {framework}
    (cause,) = report.causes
    assert (cause.backend, cause.part, cause.level) == (framework, "model", "transfer")
    assert all("exporter" in tensor for tensor in cause.tensors)


def test_an_exporter_that_cannot_is_a_note(monkeypatch):
    def write(graph, weights, target, path, options):
        if options.exporter == "torch":
            raise InputError("torch's ONNX exporter needs onnxscript", hint="pip install onnxscript")
        raise RuntimeError("no such operator")

    monkeypatch.setattr(exporters, "write", write)
    findings, notes = exporters_checked(read_subject(LENET))
    assert findings == []
    assert "needs onnxscript" in notes[0]
    assert "RuntimeError: no such operator" in notes[1]


def test_exporters_are_asked_only_beside_onnx_runtime(monkeypatch):
    asked = []
    monkeypatch.setattr("unitrain.verify.session.exporters_checked", lambda *rest: asked.append(rest[1]) or ([], []))
    subject = read_subject(LENET)
    for backends in ({"torch": "cpu"}, {"onnx": "cpu", "torch": "cpu"}):
        verify(subject, backends, levels=("transfer",), exporters=True)
    verify(subject, {"onnx": "cpu", "torch": "cpu"}, levels=("transfer",))
    assert asked == [("torch",)]
