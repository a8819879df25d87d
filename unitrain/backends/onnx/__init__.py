"""ONNX: graphs written as ONNX models, run by onnxruntime. Inference only."""

from __future__ import annotations

from onnx import ModelProto

from unitrain.backends.contract import Arrays, Candidate, Program, Settings
from unitrain.backends.onnx.model import (
    DEFAULT_OPSET,
    NEWEST_OPSET,
    OLDEST_OPSET,
    PRECISIONS,
    emit,
    implemented_types,
    opsets,
)
from unitrain.backends.onnx.program import OnnxProgram
from unitrain.backends.rule import TrainingRule
from unitrain.graph.graph import Graph

__all__ = ["BACKEND", "DEFAULT_OPSET", "NEWEST_OPSET", "OLDEST_OPSET", "emit", "opsets"]


class OnnxBackend:
    """The backend ``onnx``."""

    name = "onnx"
    trains = False
    precisions = PRECISIONS

    def devices(self) -> list[str]:
        """onnxruntime computes on the CPU here: results are compared with others', not its speed."""
        return ["cpu"]

    def layer_types(self) -> frozenset[str]:
        """Return the layer types that have an implementation."""
        return implemented_types()

    def candidates(self, graph: Graph, settings: Settings) -> tuple[Candidate, ...]:
        """Return nothing: programs do not train."""
        return ()

    def build(self, graph: Graph, weights: Arrays, settings: Settings) -> ModelProto:
        """Write an ``onnx.ModelProto``; see `emit`, which also takes an opset."""
        return emit(graph, weights, precision=settings.precision)

    def compile(self, graph: Graph, weights: Arrays, settings: Settings, rule: TrainingRule | None = None) -> Program:
        """Compile a program for inference. Raises `InputError` when there is a ``rule``."""
        return OnnxProgram(graph, weights, settings, rule)


BACKEND = OnnxBackend()
