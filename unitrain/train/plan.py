"""Which samples are seen when: the order of an epoch, its batches, and the blocks handed to a program."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from unitrain.weights.random import stream

# How long a block of steps should last: its start must cost nothing, and the display must move.
BLOCK_SECONDS = 0.2


@dataclass(frozen=True)
class Batches:
    """How a training set is cut into batches and updates.

    Parameters
    ----------
    samples
        Size of the training set.
    batch_size
        Samples in a batch; the last batch of an epoch may be shorter.
    accumulate
        Batches whose mean gradients are averaged into one update; the last group of an epoch may be shorter.
    drop_last
        Leave out a short last batch.
    shuffle
        Draw a new order every epoch; otherwise the order of the data.
    seed
        Keys the orders.
    """

    samples: int
    batch_size: int
    accumulate: int = 1
    drop_last: bool = False
    shuffle: bool = True
    seed: int = 0

    @property
    def batches_per_epoch(self) -> int:
        """Batches in an epoch, a short last one included unless it is dropped."""
        full, rest = divmod(self.samples, self.batch_size)
        return full + (1 if rest and (full == 0 or not self.drop_last) else 0)

    @property
    def updates_per_epoch(self) -> int:
        """Updates of the weights in an epoch."""
        return -(-self.batches_per_epoch // self.accumulate)

    def order(self, epoch: int) -> npt.NDArray[np.int32]:
        """Return the order of the samples in an epoch, int32 ``[samples]``: a function of seed and epoch."""
        if not self.shuffle:
            return np.arange(self.samples, dtype=np.int32)
        return stream(self.seed, "order", epoch).permutation(self.samples).astype(np.int32)

    def group(self, batch: int) -> tuple[float, bool]:
        """Return the gradient factor of a batch of the epoch, and whether an update follows it."""
        first = batch - batch % self.accumulate
        size = min(self.accumulate, self.batches_per_epoch - first)
        return 1.0 / size, batch == first + size - 1

    def block_end(self, first: int, length: int) -> int:
        """Return where a block that starts at batch ``first`` and aims at ``length`` batches ends.

        A block ends with an update, unless the next batch of the same update is the short last one: batches
        of one block have one size, and a block does not cross the epoch's end.
        """
        whole = self.samples // self.batch_size
        if first >= whole:
            return self.batches_per_epoch
        length = max(self.accumulate, length - length % self.accumulate)
        return min(first - first % self.accumulate + length, whole)

    def rows(self, order: npt.NDArray[np.int32], first: int, end: int) -> npt.NDArray[np.int32]:
        """Return the samples of batches ``first`` to ``end``: int32 ``[batches, batch size]``."""
        chosen = order[first * self.batch_size : end * self.batch_size]
        return chosen.reshape(end - first, -1)

    def coming(self, epoch: int, batch: int, epochs: int, number: int) -> Iterator[tuple[int, npt.NDArray[np.int32]]]:
        """Yield number and rows of each batch from ``batch`` of ``epoch`` on; they are numbered from ``number``."""
        for later in range(epoch, epochs):
            order = self.order(later)
            for first in range(batch if later == epoch else 0, self.batches_per_epoch):
                yield number, self.rows(order, first, first + 1)[0]
                number += 1


class BlockLength:
    """Chooses how many batches a block holds from how long the last ones took.

    Results do not depend on it: it only decides how often the host looks.
    """

    def __init__(self, seconds: float = BLOCK_SECONDS) -> None:
        self.seconds = seconds
        self.length = 1
        self._seen = 0

    def observe(self, batches: int, seconds: float) -> None:
        """Note that a block took so long; the first includes tracing and is not trusted."""
        self._seen += 1
        if self._seen == 1:
            return
        wanted = int(self.seconds * batches / max(seconds, 1e-6))
        self.length = max(1, min(wanted, 4 * self.length, 4096))
