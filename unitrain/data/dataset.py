"""Samples of one part of the data: arrays ready for a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from unitrain.data.raw import Array


@dataclass(frozen=True)
class Split:
    """Samples of one part; the first axis of every array.

    Parameters
    ----------
    inputs
        Model input -> float32 or int32 ``[n, *shape]``; a `Lazy` array where the data streams from its file.
    targets
        Model output -> int32 class codes or float32 numbers, ``[n]`` or ``[n, ...]``.
    weight
        Float32 ``[n]``, or None.
    rows
        Position of each sample in the file it came from, from 0, int64 ``[n]``; of a sample of a series, that of the
        last row it sees.
    naive
        Of a series: the seasonal naive forecast of each target that is a number, as ``targets``.
    series
        Of many series: the name of that which a sample is of, object ``[n]``.
    units
        Of many series: model output -> float64 ``[n, 3, column]``. The shift and scale that turn a target into the
        units of the data, and what an error of 1 is worth in errors of the series' seasonal naive forecast: 0 of a
        series that never changes, NaN of one that training did not have.
    """

    inputs: Mapping[str, Any]
    targets: Mapping[str, Array]
    weight: Array | None = None
    rows: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    naive: Mapping[str, Array] = field(default_factory=dict)
    series: Array | None = None
    units: Mapping[str, Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))
