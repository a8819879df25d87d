"""Mean, deviation and range of columns, from pieces of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """What is known of the columns of ``count`` rows: float64 ``[columns]`` each.

    Parameters
    ----------
    mean
        Of each column.
    squares
        Sum of the squared differences from the mean.
    low, high
        The smallest and the largest value.
    """

    count: int
    mean: Numbers
    squares: Numbers
    low: Numbers
    high: Numbers

    @classmethod
    def of(cls, values: Numbers) -> Moments:
        """Measure ``[rows, columns]``, at least one row."""
        mean: Numbers = values.mean(axis=0)
        return cls(len(values), mean, ((values - mean) ** 2).sum(axis=0), values.min(axis=0), values.max(axis=0))

    def merged(self, other: Moments) -> Moments:
        """Return the moments of both together (Chan, Golub & LeVeque 1979, equation 2.1, in terms of means)."""
        count = self.count + other.count
        difference = other.mean - self.mean
        return Moments(
            count,
            self.mean + difference * (other.count / count),
            self.squares + other.squares + difference**2 * (self.count * other.count / count),
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
        )

    @property
    def deviation(self) -> Numbers:
        """The standard deviation, of the rows as the whole population."""
        return np.sqrt(self.squares / self.count)
