"""How samples reach a program: placed on its device once, or gathered ahead of it block by block."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from unitrain.backends.contract import Arrays, Batchable, Plan, Program, Statistics
from unitrain.spans import WAITING, span

# Bytes of batches that may wait for the device, and of a block of them that is placed on it.
AHEAD_BYTES = 64 * 2**20
BLOCK_BYTES = 32 * 2**20

Rows = npt.NDArray[np.int32]
Named = dict[str, npt.NDArray[Any]]
# The batches to come: the number of each since the start of training, and its samples.
Coming = Iterator[tuple[int, Rows]]


class Augment(Protocol):
    """Changes one training batch: inputs and targets of the samples, and the number of the batch."""

    def __call__(self, inputs: Named, targets: Named, batch: int) -> tuple[Named, Named]:
        """Return the changed inputs and targets."""
        ...


class Teach(Protocol):
    """Changes the targets of one training batch by its inputs, after these were changed."""

    def __call__(self, inputs: Arrays, targets: Arrays) -> dict[str, npt.NDArray[Any]]:
        """Return the changed targets."""
        ...


class Feed(Protocol):
    """Runs plans over a training set."""

    longest: int
    """The most batches that a block should hold."""

    def run(self, plan: Plan) -> Statistics:
        """Run a block of steps."""
        ...

    def close(self) -> None:
        """Let go of what waits; nothing is run afterwards."""
        ...

    def __enter__(self) -> Feed: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        ...


def in_memory(data: Batchable) -> bool:
    """Tell whether a data set lies in memory, and is not read as it is needed."""
    return all(isinstance(array, np.ndarray) for array in (*data.inputs.values(), *data.targets.values()))


def make_feed(
    program: Program, data: Batchable, coming: Coming, augment: Augment | None = None, teach: Teach | None = None
) -> Feed:
    """Place what is in memory and stays as it is; stream the rest."""
    if augment is None and teach is None and in_memory(data):
        return Resident(program, data)
    return Streamed(program, data, coming, augment, teach)


class _Closing:
    """Closes at the end of a ``with``."""

    def close(self) -> None:
        """Nothing waits."""

    def __enter__(self) -> Any:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Resident(_Closing):
    """A training set that lies on the device as a whole."""

    longest: int = sys.maxsize

    def __init__(self, program: Program, data: Batchable) -> None:
        self._program = program
        self._placed = program.place(data)

    def run(self, plan: Plan) -> Statistics:
        """Run a block of steps; the program gathers each batch."""
        return self._program.run_steps(self._placed, plan)


@dataclass(frozen=True)
class _Batch:
    """A batch that was gathered, and its bytes."""

    number: int
    rows: Rows
    content: Batchable
    size: int


class Streamed(_Closing):
    """A training set of which only the next batches are gathered, in a thread of its own, while the device computes.

    What is computed does not depend on what was gathered ahead: a batch that was not announced is gathered when
    it is asked for.

    Parameters
    ----------
    program
        Trains; used by the calling thread alone.
    data
        The training set; its arrays may be anything that gives an array for ``array[rows]``.
    coming
        The batches that will be asked for.
    augment
        Changes each batch.
    teach
        Changes the targets of each batch, by its changed inputs.
    ahead_bytes, block_bytes
        Most bytes of batches that wait, and of one block; a single batch may be larger.
    """

    def __init__(
        self,
        program: Program,
        data: Batchable,
        coming: Coming,
        augment: Augment | None = None,
        teach: Teach | None = None,
        *,
        ahead_bytes: int = AHEAD_BYTES,
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        self._program, self._data, self._augment, self._teach = program, data, augment, teach
        self._ahead_bytes, self._block_bytes = ahead_bytes, block_bytes
        self.longest = 1  # until the size of a batch is known
        self._ahead = 2  # batches: two blocks as long as the last
        self._waiting: deque[_Batch] = deque()
        self._changed = threading.Condition()
        self._closed = self._ended = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, args=(coming,), name="feed", daemon=True)
        self._thread.start()

    def run(self, plan: Plan) -> Statistics:
        """Run a block of steps.

        Raises
        ------
        BaseException
            Whatever reading or changing a batch of this block has raised.
        """
        with self._changed:
            self._ahead = 2 * len(plan)
            self._changed.notify_all()
        batches = []
        for index, rows in enumerate(plan.indices):
            with span(WAITING):
                batches.append(self._batch(plan.first_step + index, rows))
        size = sum(array.nbytes for array in _arrays(batches[0]))
        self.longest = max(1, self._block_bytes // max(1, size))
        with span(WAITING):
            block = _joined(batches)
        indices = np.arange(plan.indices.size, dtype=np.int32).reshape(plan.indices.shape)
        placed = self._program.place(block)
        del batches, block
        return self._program.run_steps(placed, replace(plan, indices=indices))

    def close(self) -> None:
        """Stop the thread and drop what waits."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()
        self._thread.join()

    def _batch(self, number: int, rows: Rows) -> Batchable:
        """Take a batch from those that wait; gather it now where another was announced."""
        found: _Batch | None = None
        with self._changed:
            while found is None and not (self._ended and not self._waiting):
                if not self._waiting:
                    self._changed.wait()
                elif self._waiting[0].number > number:
                    break
                else:
                    first = self._waiting.popleft()
                    self._changed.notify_all()
                    found = first if first.number == number else None
            if found is None and self._error is not None and not self._waiting:
                raise self._error
        if found is None or not np.array_equal(found.rows, rows):
            return self._gathered(number, rows)
        return found.content

    def _work(self, coming: Coming) -> None:
        """Gather ahead, and say at the end that there is no more."""
        try:
            self._gather_ahead(coming)
        except BaseException as error:  # whatever it is, the thread that asks for the batch gets it
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _gather_ahead(self, coming: Coming) -> None:
        for number, rows in coming:
            content = self._gathered(number, rows)
            batch = _Batch(number, rows, content, sum(array.nbytes for array in _arrays(content)))
            with self._changed:
                while not (self._closed or self._has_room(batch.size)):
                    self._changed.wait()
                if self._closed:
                    return
                self._waiting.append(batch)
                self._changed.notify_all()

    def _has_room(self, size: int) -> bool:
        if not self._waiting:
            return True
        held = sum(batch.size for batch in self._waiting)
        return len(self._waiting) < self._ahead and held + size <= self._ahead_bytes

    def _gathered(self, number: int, rows: Rows) -> Batchable:
        data = self._data
        inputs = {name: array[rows] for name, array in data.inputs.items()}
        targets = {name: array[rows] for name, array in data.targets.items()}
        if self._augment is not None:
            inputs, targets = self._augment(inputs, targets, number)
        if self._teach is not None:
            targets = self._teach(inputs, targets)
        return Batchable(inputs, targets, None if data.weight is None else data.weight[rows])


def _arrays(data: Batchable) -> list[npt.NDArray[Any]]:
    weight = [] if data.weight is None else [data.weight]
    return [*data.inputs.values(), *data.targets.values(), *weight]


def _joined(batches: list[Batchable]) -> Batchable:
    """Put batches one after the other."""
    first = batches[0]
    if len(batches) == 1:
        return first
    weights = [batch.weight for batch in batches if batch.weight is not None]
    return Batchable(
        {name: np.concatenate([batch.inputs[name] for batch in batches]) for name in first.inputs},
        {name: np.concatenate([batch.targets[name] for batch in batches]) for name in first.targets},
        np.concatenate(weights) if weights else None,
    )
