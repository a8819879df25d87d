"""The forms in which NumPy trains: how a step uses the processor's cores."""

from __future__ import annotations

from unitrain.backends.contract import Candidate, Settings
from unitrain.backends.numpy.threads import allowed_threads
from unitrain.graph.graph import Graph

SHARDS, WHOLE, ONE_THREAD = "shards", "whole", "one-thread"


def candidates(graph: Graph, settings: Settings) -> tuple[Candidate, ...]:
    """List them, the standard form first."""
    standard = Candidate(SHARDS, "the batch in shards, one a thread, where that pays")
    threads = allowed_threads()
    if threads == 1:
        return (standard,)
    return (
        standard,
        Candidate(WHOLE, f"the whole batch at once, matrix products on {threads} threads"),
        Candidate(ONE_THREAD, "everything on one thread"),
    )
