"""NumPy programs in which layers compute by other functions: the yardsticks of what rounding costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy.typing as npt

from unitrain.backends.contract import Arrays, Candidate, Plan, Program, Settings, Statistics
from unitrain.backends.numpy import BACKEND
from unitrain.backends.numpy.registry import IMPLEMENTATIONS, Forward
from unitrain.backends.rule import TrainingRule
from unitrain.graph.graph import Graph
from unitrain.spec.layers import LayerSpec

Functions = Mapping[type[LayerSpec], Forward]
Change = Callable[[Functions], Functions]


@contextmanager
def _altered(change: Change) -> Iterator[None]:
    first = dict(IMPLEMENTATIONS)
    IMPLEMENTATIONS.update(change(first))
    try:
        yield
    finally:
        IMPLEMENTATIONS.update(first)


class AlteredBackend:
    """NumPy with other forward functions for some layers, or for all.

    Parameters
    ----------
    change
        Given the forward functions that there are, returns those that stand in their place.
    """

    name = "numpy"
    trains = True
    precisions = BACKEND.precisions

    def __init__(self, change: Change) -> None:
        self._change = change

    def devices(self) -> list[str]:
        """List the devices: the CPU."""
        return BACKEND.devices()

    def layer_types(self) -> frozenset[str]:
        """List the layers: all."""
        return BACKEND.layer_types()

    def candidates(self, graph: Graph, settings: Settings) -> tuple[Candidate, ...]:
        """Return NumPy's."""
        return BACKEND.candidates(graph, settings)

    def build(self, graph: Graph, weights: Arrays, settings: Settings) -> Any:
        """Build NumPy's own model."""
        return BACKEND.build(graph, weights, settings)

    def compile(self, graph: Graph, weights: Arrays, settings: Settings, rule: TrainingRule | None = None) -> Program:
        """Compile a program that computes with the other functions."""
        return AlteredProgram(BACKEND.compile(graph, weights, settings, rule), self._change)


class AlteredProgram:
    """A NumPy program whose every pass goes by other functions; see `AlteredBackend`."""

    def __init__(self, program: Program, change: Change) -> None:
        self._program = program
        self._change = change
        self.graph = program.graph

    def weights(self) -> dict[str, npt.NDArray[Any]]:
        """As the program's own."""
        return self._program.weights()

    def load_weights(self, weights: Arrays) -> None:
        """As the program's own."""
        self._program.load_weights(weights)

    def slots(self) -> dict[str, dict[str, npt.NDArray[Any]]]:
        """As the program's own."""
        return self._program.slots()

    def load_slots(self, slots: Mapping[str, Arrays]) -> None:
        """As the program's own."""
        self._program.load_slots(slots)

    def place(self, data: Any) -> Any:
        """As the program's own."""
        return self._program.place(data)

    def run_steps(self, placed: Any, plan: Plan) -> Statistics:
        """Train."""
        with _altered(self._change):
            return self._program.run_steps(placed, plan)

    def predict(self, inputs: Arrays, batch_size: int = 256) -> dict[str, npt.NDArray[Any]]:
        """Run inference."""
        with _altered(self._change):
            return self._program.predict(inputs, batch_size)

    def activations(self, inputs: Arrays, *, training: bool = False, step: int = 0) -> dict[str, npt.NDArray[Any]]:
        """Return the output of every node."""
        with _altered(self._change):
            return self._program.activations(inputs, training=training, step=step)

    def differentiate(
        self, inputs: Arrays, output_gradients: Arrays, *, training: bool = True, step: int = 0
    ) -> tuple[dict[str, npt.NDArray[Any]], dict[str, npt.NDArray[Any]], dict[str, npt.NDArray[Any]]]:
        """Return outputs and gradients."""
        with _altered(self._change):
            return self._program.differentiate(inputs, output_gradients, training=training, step=step)
