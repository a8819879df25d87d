"""Steps recorded once as a CUDA graph and replayed: the host then starts one thing for many kernels.

Of a small model a GPU computes a step in less time than the host takes to start its kernels one by one. A recording
holds kernels and the memory they read: what differs from step to step, the batch, the scalars of the optimizer, the
number of the step, is written into that memory before a replay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from unitrain.backends.torch.transfer import Placed
from unitrain.spec.errors import InputError

# Kernels choose their algorithms and take their workspaces when they first run, which may not be recorded.
_WARM = 2
# What is recorded at once: so many steps, of small models and batches; a long recording gains nothing.
_MOST_STEPS = 16
_MOST_NODES = 256
_MOST_BYTES = 2**26

Terms = list[torch.Tensor | float]
# A batch, the number of its step, the row of `Updates.rows`, and the flag of `Recorded`, which the step brings up to
# date; it returns the loss, and the terms of metrics.
Step = Callable[[Placed, torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, Terms]]


@dataclass(frozen=True)
class Found:
    """What some steps gave: losses ``[steps]``, and of each term ``[steps]``, or the number that is known anyway."""

    losses: torch.Tensor
    terms: Sequence[torch.Tensor | float]

    def copied(self) -> Found:
        """Return a copy, which the next replay does not write over."""
        return Found(self.losses.clone(), [t.clone() if isinstance(t, torch.Tensor) else t for t in self.terms])


def record(function: Callable[[], Found], device: torch.device) -> tuple[Callable[[], None], Found]:
    """Record what a function starts on a GPU, without computing it; return the replay, and where results will lie.

    Raises
    ------
    InputError
        Something in it waits for the device, or moves memory of the host.
    """
    graph = torch.cuda.CUDAGraph()
    try:
        # Other threads may go on: one may be copying weights for a checkpoint, or the next samples.
        with torch.cuda.device(device), torch.cuda.graph(graph, capture_error_mode="thread_local"):
            found = function()
    except RuntimeError as error:
        raise InputError(
            f"the steps of this model cannot be recorded: {str(error).splitlines()[0]}",
            field=("execution", "candidate"),
            found="recorded",
            allowed="eager",
        ) from error
    return graph.replay, found


def run_aside(function: Callable[[], Found], device: torch.device) -> Found:
    """Run a function on a stream of its own, as recordings are made on one."""
    with torch.cuda.device(device):
        side: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        main = torch.cuda.current_stream(device)
        side.wait_stream(main)
        with torch.cuda.stream(side):
            found = function().copied()
        main.wait_stream(side)
        return found


class Recorded:
    """Some steps with batches of one size, recorded when they have run twice.

    Parameters
    ----------
    step
        Takes one step, without reading anything from the device.
    steps
        How many are recorded together.
    batch
        The batches of so many steps, one behind the other, as they are first run.
    rows
        Their scalars ``[steps, scalars]``.
    flag
        0 while all losses of a block were finite, else NaN.
    """

    def __init__(self, step: Step, steps: int, batch: Placed, rows: torch.Tensor, flag: torch.Tensor) -> None:
        self._step, self._steps, self._flag = step, steps, flag
        self._batch = batch.map(torch.empty_like)
        self._rows = torch.empty_like(rows)
        self._numbers = torch.zeros(steps, dtype=torch.int64, device=rows.device)
        self._warm = 0
        self._replay: Callable[[], None] | None = None
        self._found: Found | None = None

    def run(
        self,
        batch: Placed,
        first: int,
        rows: torch.Tensor,
        seeded: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> Found:
        """Take the steps from number ``first`` on; ``seeded`` seeds the device's generator for a while."""
        for own, given in zip(self._batch.tensors, batch.tensors, strict=True):
            own.copy_(given)
        self._rows.copy_(rows)
        torch.arange(first, first + self._steps, out=self._numbers)
        device = rows.device
        if self._replay is None and self._warm < _WARM:
            self._warm += 1
            with seeded():
                return run_aside(self._all, device)
        if self._replay is None or self._found is None:
            self._replay, self._found = record(self._all, device)
        with seeded():
            self._replay()
        return self._found.copied()

    def _all(self) -> Found:
        size = len(self._batch.tensors[0]) // self._steps
        losses, counted = [], []
        for step in range(self._steps):
            one = self._batch.map(partial(torch.narrow, dim=0, start=step * size, length=size))
            loss, terms = self._step(one, self._numbers[step], self._rows[step], self._flag)
            losses.append(loss)
            counted.append(terms)
        return Found(torch.stack(losses), [_stacked(column) for column in zip(*counted, strict=True)])


def recorded_steps(nodes: int, batch_bytes: int) -> int:
    """Return how many steps to record together, of a graph of so many nodes and batches of so many bytes."""
    return max(1, min(_MOST_STEPS, _MOST_NODES // max(1, nodes), _MOST_BYTES // max(1, batch_bytes)))


def _stacked(column: Sequence[torch.Tensor | float]) -> torch.Tensor | float:
    """Stack a term of all steps; a number that the host knows is that of batches of one size."""
    tensors = [term for term in column if isinstance(term, torch.Tensor)]
    return torch.stack(tensors) if tensors else column[0]
