"""A training step's passes through the graph, the batch cut into shards that are computed side by side."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import prod

import numpy as np

from unitrain.backends.numpy.execution import Mode, Pass, backward, forward
from unitrain.backends.numpy.memory import Workspace
from unitrain.backends.numpy.registry import Array
from unitrain.backends.numpy.threads import run_together
from unitrain.graph.graph import Graph
from unitrain.spec.layers.norm import BatchNorm

# A shard is worth a thread of its own from so many computed numbers on.
SHARD_ELEMENTS = 1 << 17


class Shards:
    """Forward and backward passes of training, over shards of the batch.

    Parameters
    ----------
    graph
        What is computed.
    seed
        Keys the dropout masks, which are those of the whole batch.
    """

    def __init__(self, graph: Graph, seed: int) -> None:
        self._graph = graph
        self._seed = seed
        self._workspaces: list[Workspace] = []
        self._passes: list[Pass] = []
        self._elements = sum(prod(node.output_shape) for node in graph.nodes)
        self._parameters = sum(prod(graph.parameters[name].shape) for name in graph.trainable)
        # Every other layer computes each sample by itself alone.
        self._separable = not any(
            isinstance(node.layer, BatchNorm) or getattr(node.layer, "range", None) == "moving_average"
            for node in graph.nodes
        )

    def count(self, samples: int, threads: int) -> int:
        """Return into how many shards a batch is cut: at most one a thread, and one where more would not be faster.

        NumPy runs matrix products on all threads by itself, and nothing else. So shards are for graphs that compute
        many numbers beside: each shard reads all parameters and writes gradients by them, and should compute more
        than these.
        """
        if not self._separable:
            return 1
        worth = self._elements * samples // max(SHARD_ELEMENTS, self._parameters)
        return max(min(threads, samples, worth), 1)

    def forward(
        self, weights: Mapping[str, Array], inputs: Mapping[str, Array], step: int, count: int
    ) -> dict[str, Array]:
        """Return the outputs for the whole batch, and remember what `backward` needs.

        The next step overwrites them.
        """
        samples = len(next(iter(inputs.values())))
        bounds = [samples * number // count for number in range(count + 1)]
        self._workspaces += [Workspace() for _ in range(count - len(self._workspaces))]

        def shard(number: int) -> Pass:
            first, end = bounds[number], bounds[number + 1]
            mode = Mode(True, self._seed, step, first, samples, self._workspaces[number])
            part = {name: array[first:end] for name, array in inputs.items()}
            return forward(self._graph, weights, part, mode, differentiate=True)

        self._passes = run_together([partial(shard, number) for number in range(count)])
        parts = [done.outputs() for done in self._passes]
        if count == 1:
            return parts[0]
        return {output: np.concatenate([part[output] for part in parts]) for output in self._graph.outputs}

    def backward(self, output_gradients: Mapping[str, Array]) -> tuple[dict[str, list[Array]], dict[str, Array]]:
        """Return the gradients by the parameters, one a shard in order, and new running statistics."""
        passes, self._passes = self._passes, []
        tasks, first = [], 0
        for done in passes:
            end = first + len(next(iter(done.inputs.values())))
            seeds = {output: gradient[first:end] for output, gradient in output_gradients.items()}
            tasks.append(partial(backward, done, seeds))
            first = end
        gradients: dict[str, list[Array]] = {}
        for _, by_parameter in run_together(tasks):
            for name, gradient in by_parameter.items():
                gradients.setdefault(name, []).append(gradient)
        return gradients, {name: value for done in passes for name, value in done.updates.items()}
