"""ONNX models by the frameworks' own exporters, run by onnxruntime and held to the reference."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from unitrain.backends.contract import Arrays
from unitrain.graph.graph import Graph
from unitrain.spec.errors import InputError
from unitrain.verify.export import Compared, Exporter, Options, Written, write
from unitrain.verify.findings import MODEL, Finding, TensorName
from unitrain.verify.runner import Array
from unitrain.verify.subject import Subject
from unitrain.verify.verdict import Verdict

FRAMEWORKS: tuple[Exporter, ...] = ("torch", "keras")


def exporters_checked(
    subject: Subject, frameworks: tuple[Exporter, ...] = FRAMEWORKS, tell: Callable[[str], None] = lambda message: None
) -> tuple[list[Finding], list[str]]:
    """Let each framework write its model as ONNX, into a folder that is gone afterwards, and judge what that computes.

    Returns
    -------
    findings
        One an output and size of batch, under the framework's name.
    notes
        Why an exporter was left out: it is not installed, cannot write the model, or writes one that does not run.
        That is a fault of the exporter, and none of the framework's arithmetic.
    """
    inputs: dict[str, Array] = dict(subject.batch(0).inputs)
    compared = Compared.of(subject.graph, subject.weights, inputs, "float32", subject.seed)
    findings: list[Finding] = []
    notes: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for framework in frameworks:
            tell(f"ONNX by {framework}'s own exporter")
            path = Path(folder) / f"{framework}.onnx"
            verdicts = _judged(subject.graph, subject.weights, path, framework, compared)
            if isinstance(verdicts, str):
                notes.append(f"{framework}'s own ONNX exporter is left out: {verdicts}")
                continue
            for output, verdict in verdicts.items():
                name = TensorName("transfer", MODEL, f"{output}, ONNX by {framework}'s exporter", "inference")
                findings.append(Finding(framework, name, verdict))
    return findings, notes


def _judged(
    graph: Graph, weights: Arrays, path: Path, framework: Exporter, compared: Compared
) -> dict[str, Verdict] | str:
    """Write, load and run; return verdicts, or why there are none."""
    try:
        written: Written = write(graph, weights, "onnx", path, Options(exporter=framework))
        return compared.judge(written.load())
    except InputError as error:
        return str(error)
    except Exception as error:  # each framework, and onnxruntime, raises its own
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
