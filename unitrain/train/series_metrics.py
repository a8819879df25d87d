"""Metrics in the units of many series: each sample is measured in those of the series it is of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from unitrain.backends.namespace import ArrayNamespace, Tensor
from unitrain.data.targets import by_sample
from unitrain.spec.errors import InputError
from unitrain.train.streaming_metrics import MeanError, RelativeError, Streaming

Floats = npt.NDArray[np.float64]
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class OfSeries(Streaming):
    """A metric of numbers in other units than the targets', on the host alone; `sums_of` is told what these are.

    Parameters
    ----------
    metric
        Of numbers in the units of the data; or of ``naive``: in errors of the seasonal naive forecast.
    naive
        MASE: the mean over samples of |y - p| over the naive forecast's mean error in the training span of the series.
        Samples of a series that never changes count nothing.
    """

    metric: MeanError | RelativeError
    naive: bool
    streams: ClassVar[bool] = False

    def terms(
        self, xp: ArrayNamespace, prediction: Tensor, target: Tensor, weight: Tensor | None
    ) -> tuple[Tensor, Tensor | float]:
        """Return the metric's terms, of numbers that are in its units."""
        return self.metric.terms(xp, prediction, target, weight)

    def sums_of(self, prediction: Floats, target: Array, weight: Floats | None, units: Floats) -> Floats:
        """Return numerator and denominator in float64, with units ``[batch, 3, column]`` as `Batchable` has them.

        Raises
        ------
        InputError
            A sample is of a series that training did not have, so that nothing says how wrong the naive forecast is.
        """
        shift, scale, worth = (units[:, which] for which in range(3))
        if self.naive:
            if np.isnan(worth).any():
                raise InputError(
                    "mase is in errors of the seasonal naive forecast in training, which did not have this series",
                    hint="leave out `mase`, or the series",
                )
            known: Floats = np.asarray((worth > 0).all(axis=1), dtype=np.float64)
            weight = known if weight is None else np.asarray(weight * known)
            shift, scale = np.zeros_like(worth), worth
        scale, shift = by_sample(scale, prediction), by_sample(shift, prediction)
        return self.sums(prediction * scale + shift, target.reshape(prediction.shape) * scale + shift, weight)
