"""The forms in which Keras trains: a block of steps as TensorFlow's graph, or each step compiled by XLA."""

from __future__ import annotations

from unitrain.backends.contract import Candidate, Settings
from unitrain.graph.graph import Graph

GRAPH, XLA = "graph", "xla"


def candidates(graph: Graph, settings: Settings) -> tuple[Candidate, ...]:
    """List them, the standard form first."""
    return (
        Candidate(GRAPH, "a block of steps in one graph"),
        Candidate(XLA, "each step compiled by XLA", first_seconds=2.0),
    )
