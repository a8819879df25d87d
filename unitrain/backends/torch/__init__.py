"""PyTorch: graphs as ``torch.nn.Module`` objects, trained by blocks of steps."""

from __future__ import annotations

from typing import Any

import torch

from unitrain.backends.contract import Arrays, Candidate, Precision, Program, Settings
from unitrain.backends.precision import HALF
from unitrain.backends.rule import TrainingRule
from unitrain.graph.graph import Graph


class TorchBackend:
    """The backend ``torch``."""

    name = "torch"
    trains = True
    precisions: tuple[Precision, ...] = ("float32", "float64", *HALF)

    def devices(self) -> list[str]:
        """Return ``cpu``, one ``cuda:N`` for each GPU, and ``mps`` where torch has it."""
        found = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
        return [*found, "mps"] if torch.backends.mps.is_available() else found

    def layer_types(self) -> frozenset[str]:
        """Return the layer types that have an implementation."""
        from unitrain.backends.torch.module import implemented_types

        return implemented_types()

    def candidates(self, graph: Graph, settings: Settings) -> tuple[Candidate, ...]:
        """List the forms in which programs of this graph can train here, the standard one first."""
        from unitrain.backends.torch.candidates import candidates

        return candidates(graph, settings)

    def build(self, graph: Graph, weights: Arrays, settings: Settings) -> Any:
        """Build a ``torch.nn.Module`` with these weights.

        Submodules have the names of the nodes, so that ``state_dict`` reads ``stage1.0.conv1.weight``, and
        ``model.stage1[0].conv1`` is torch's own ``nn.Conv2d`` or a subclass of it, with torch's layouts. A name that
        a module has already, such as ``forward``, gets a ``_`` behind it.

        Images go in as ``[batch, height, width, channel]``. One output comes back as a tensor, several as a
        dictionary; several inputs are given in the graph's order or as a mapping by name. The module starts in
        training mode, as all of torch's do.

        Raises
        ------
        InputError
            The device has no numbers of the wanted precision.
        """
        from unitrain.backends.torch.module import GraphModule

        return GraphModule(graph, weights, settings)

    def compile(self, graph: Graph, weights: Arrays, settings: Settings, rule: TrainingRule | None = None) -> Program:
        """Compile a program; without a ``rule`` it serves inference and differentiation only."""
        from unitrain.backends.torch.program import TorchProgram

        return TorchProgram(graph, weights, settings, rule)


BACKEND = TorchBackend()
