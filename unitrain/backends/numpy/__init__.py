"""The NumPy reference: every layer with a hand-derived backward pass, in float32 and float64."""

from __future__ import annotations

from unitrain.backends.contract import Arrays, Backend, Candidate, Settings

# Importing a family fills its cells of the registry.
from unitrain.backends.numpy import (  # noqa: F401  (imported for what they register)
    activation,
    arithmetic,
    attention,
    axis,
    conv,
    dense,
    dropout,
    embedding,
    gate,
    mask,
    merge,
    norm,
    pool,
    position,
    projection,
    quantize,
    recurrent,
    resize,
    shape,
    similarity,
    tabular,
    vision,
)
from unitrain.backends.numpy.model import PRECISIONS, NumpyModel
from unitrain.backends.numpy.program import NumpyProgram
from unitrain.backends.numpy.registry import IMPLEMENTATIONS
from unitrain.backends.rule import TrainingRule
from unitrain.graph.graph import Graph


class NumpyBackend:
    """`contract.Backend` for NumPy."""

    name = "numpy"
    trains = True
    precisions = PRECISIONS

    def devices(self) -> list[str]:
        """NumPy computes on the CPU."""
        return ["cpu"]

    def layer_types(self) -> frozenset[str]:
        """List the layer types that have an implementation."""
        return frozenset(str(layer.model_fields["type"].default) for layer in IMPLEMENTATIONS)

    def candidates(self, graph: Graph, settings: Settings) -> tuple[Candidate, ...]:
        """List the forms in which programs of this graph can train here, the standard one first."""
        from unitrain.backends.numpy.candidates import candidates

        return candidates(graph, settings)

    def build(self, graph: Graph, weights: Arrays, settings: Settings) -> NumpyModel:
        """Build a model to call and to look into."""
        return NumpyModel(graph, weights, settings)

    def compile(
        self, graph: Graph, weights: Arrays, settings: Settings, rule: TrainingRule | None = None
    ) -> NumpyProgram:
        """Compile a program; without a ``rule`` it serves inference and differentiation only."""
        return NumpyProgram(graph, weights, settings, rule)


BACKEND: Backend = NumpyBackend()
