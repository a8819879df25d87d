"""The forms in which torch trains: who runs a step's operations, and on how many threads."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import Any

import torch

from unitrain.backends.contract import Candidate, Settings
from unitrain.graph.graph import Graph
from unitrain.spec.layers import BatchNorm, DroppingLayer

EAGER, ONE_THREAD, COMPILED, RECORDED = "eager", "one-thread", "compiled", "recorded"

# Dropout is keyed by the step and batch norm moves statistics: torch would compile anew for each step.
_CHANGING = (BatchNorm, DroppingLayer)


def candidates(graph: Graph, settings: Settings) -> tuple[Candidate, ...]:
    """List them, the standard form first."""
    found = [Candidate(EAGER, "operation by operation")]
    if settings.device == "cpu" and torch.get_num_threads() > 1:
        found.append(Candidate(ONE_THREAD, "operation by operation, on one thread"))
    if settings.device.startswith("cuda"):
        found.append(Candidate(RECORDED, "steps recorded once as a CUDA graph and replayed", first_seconds=1.0))
    if _compiler() and not any(isinstance(node.layer, _CHANGING) for node in graph.nodes):
        found.append(Candidate(COMPILED, "layers and their gradients by torch.compile", first_seconds=15.0))
    return tuple(found)


def _compiler() -> bool:
    """Tell whether there is what torch.compile needs to build code: a C++ compiler."""
    return shutil.which(os.environ.get("CXX", "g++")) is not None


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function of tensors for fixed shapes, in this process and without torch's cache of pickles."""
    result: Callable[..., Any] = torch.compile(
        function, dynamic=False, options={"compile_threads": 1, "fx_graph_cache": False}
    )
    return result
