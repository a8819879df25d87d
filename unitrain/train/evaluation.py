"""Loss and metrics of a data set, computed in float64 on the host from a program's predictions.

The arithmetic is the same whichever backend predicted, so that values compare across backends.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from unitrain.backends.contract import Arrays, Batchable, Program
from unitrain.backends.namespace import ArrayNamespace
from unitrain.backends.rule import LossFunction
from unitrain.data.lazy import take
from unitrain.train.metrics import HostMetric
from unitrain.train.series_metrics import OfSeries

# Of inputs that are read from a file to be predicted; while they are scaled they take six times as much.
_PIECE_BYTES = 8 * 2**20
# Of predictions in float64 that are measured together.
_PREDICTED_BYTES = 64 * 2**20

Floats = npt.NDArray[np.float64]
Sums = npt.NDArray[np.float64]
# Which samples, and what a program predicts of them.
Piece = tuple[slice, Mapping[str, npt.NDArray[Any]]]


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
        """Predict and measure: ``{"loss": ..., label: ...}``.

        Piece by piece, and the pieces' sums and counts added up, so that the predictions of a language model need not
        lie in memory at once. Those of outputs whose metrics need all samples do.
        """
        return self._measured(self._predicted(program, data), data)

    def measure(self, predictions: Mapping[str, npt.NDArray[Any]], data: Batchable) -> dict[str, Any]:
        """Measure predictions that are at hand."""
        return self._measured([(slice(None), predictions)], data)

    def _measured(self, pieces: Iterable[Piece], data: Batchable) -> dict[str, Any]:
        sums: dict[str, Sums] = {}
        whole: dict[str, list[Floats]] = {output: [] for _, output, metric in self.metrics if not metric.additive}
        weight = None if data.weight is None else data.weight.astype(np.float64)
        for rows, predictions in pieces:
            exact = {name: values.astype(np.float64) for name, values in predictions.items()}
            targets = {name: array[rows] for name, array in data.targets.items()}
            units = {name: array[rows] for name, array in data.units.items()}
            for label, found in self._sums(exact, targets, None if weight is None else weight[rows], units):
                sums[label] = found if label not in sums else sums[label] + found
            for output, kept in whole.items():
                kept.append(exact[output])
        total = 0.0
        for output, (factor, _) in self.losses.items():
            numerator, denominator = sums[f"loss of {output}"]
            total += factor * float(numerator / denominator if denominator != 0 else 0.0)
        values: dict[str, Any] = {"loss": total}
        complete = {output: np.concatenate(kept) for output, kept in whole.items()}
        for label, output, metric in self.metrics:
            values[label] = (
                metric.of_sums(sums[label])
                if metric.additive
                else metric.evaluate(complete[output], data.targets[output], weight)
            )
        return values

    def _sums(
        self,
        exact: Mapping[str, Floats],
        targets: Mapping[str, npt.NDArray[Any]],
        weight: Floats | None,
        units: Mapping[str, Floats],
    ) -> Iterator[tuple[str, Sums]]:
        """Return what of a piece is added to that of others: numerator and denominator, or counts."""
        for output, (_, loss) in self.losses.items():
            numerator, denominator = loss.terms(self.namespace, exact[output], targets[output], weight)
            yield f"loss of {output}", np.array([float(numerator), float(denominator)])
        for label, output, metric in self.metrics:
            if isinstance(metric, OfSeries):
                yield label, metric.sums_of(exact[output], targets[output], weight, units[output])
            elif metric.additive:
                yield label, metric.sums(exact[output], targets[output], weight)

    def _predicted(self, program: Program, data: Batchable) -> Iterator[Piece]:
        """Predict piece by piece, cut where batches are cut; a piece's predictions take about `_PREDICTED_BYTES`."""
        graph = program.graph
        row_bytes = 8 * sum(math.prod(graph.shape(node)) for node in graph.outputs.values())
        length = self.batch_size * max(1, _PREDICTED_BYTES // max(1, row_bytes * self.batch_size))
        for first in range(0, len(data), length):
            rows = slice(first, first + length)
            yield (
                rows,
                predict(program, {name: take(array, rows) for name, array in data.inputs.items()}, self.batch_size),
            )


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
