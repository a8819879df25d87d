"""Loss and metrics of a data set, computed in float64 on the host from a program's predictions.

The arithmetic is the same whichever backend predicted, so that values compare across backends.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from unitrain.backends.contract import ArrayNamespace, Arrays, Batchable, LossFunction, Program
from unitrain.train.metrics import HostMetric

# Of inputs that are read from a file to be predicted; while they are scaled they take six times as much.
_PIECE_BYTES = 8 * 2**20


@dataclass(frozen=True)
class Evaluator:
    """What is measured on a data set.

    Parameters
    ----------
    namespace
        NumPy's array namespace.
    losses
        Factor and loss of each trained output, as in `TrainingRule`.
    metrics
        ``(label, output, metric)``.
    batch_size
        Samples predicted at a time.
    """

    namespace: ArrayNamespace
    losses: Mapping[str, tuple[float, LossFunction]]
    metrics: Sequence[tuple[str, str, HostMetric]]
    batch_size: int = 256

    def evaluate(self, program: Program, data: Batchable) -> dict[str, Any]:
        """Predict and measure: ``{"loss": ..., label: ...}``."""
        return self.measure(predict(program, data.inputs, self.batch_size), data)

    def measure(self, predictions: Mapping[str, npt.NDArray[Any]], data: Batchable) -> dict[str, Any]:
        """Measure predictions that are at hand."""
        weight = None if data.weight is None else data.weight.astype(np.float64)
        exact = {name: values.astype(np.float64) for name, values in predictions.items()}
        total = 0.0
        for output, (factor, loss) in self.losses.items():
            numerator, denominator = loss.terms(self.namespace, exact[output], data.targets[output], weight)
            total += factor * float(numerator / denominator if denominator != 0 else 0.0)
        values: dict[str, Any] = {"loss": total}
        for label, output, metric in self.metrics:
            values[label] = metric.evaluate(exact[output], data.targets[output], weight)
        return values


def predict(program: Program, inputs: Arrays, batch_size: int) -> dict[str, npt.NDArray[Any]]:
    """Predict; inputs that are no arrays in memory are read piece by piece, cut where batches are cut."""
    if all(isinstance(array, np.ndarray) for array in inputs.values()):
        return program.predict(inputs, batch_size)
    count = len(next(iter(inputs.values())))
    row_bytes = sum(array.dtype.itemsize * math.prod(array.shape[1:]) for array in inputs.values())
    length = batch_size * max(1, _PIECE_BYTES // max(1, row_bytes * batch_size))
    pieces = [
        program.predict({name: array[first : first + length] for name, array in inputs.items()}, batch_size)
        for first in range(0, count, length)
    ]
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
