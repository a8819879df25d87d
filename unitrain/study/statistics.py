"""How sure a difference is: intervals and tests for two models that answered the same samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from unitrain.timing import Interval

Numbers = npt.NDArray[np.float64]
Answers = npt.NDArray[np.bool_]
Standing = Literal["not inferior", "inferior", "open"]

CONFIDENCE = 0.95
RESAMPLES = 2000
# Resampled indices that are drawn at a time, 8 bytes each.
_MOST_INDICES = 4_000_000


@dataclass(frozen=True)
class Table:
    """How two models answered the same samples: both right, only the first, only the second, neither."""

    both: int
    first: int
    second: int
    neither: int

    @classmethod
    def of(cls, first: Answers, second: Answers) -> Table:
        """Count two arrays of right answers ``[n]``."""
        return cls(
            int((first & second).sum()),
            int((first & ~second).sum()),
            int((~first & second).sum()),
            int((~first & ~second).sum()),
        )

    @property
    def samples(self) -> int:
        """How many samples there are."""
        return self.both + self.first + self.second + self.neither


def wilson(successes: int, samples: int, confidence: float = CONFIDENCE) -> Interval:
    """Return a share with its score interval (Wilson 1927, without continuity correction).

    Raises
    ------
    ValueError
        There are no samples.
    """
    if samples <= 0:
        raise ValueError("a share needs samples")
    z = _normal_quantile(confidence)
    share = successes / samples
    scale = 1.0 + z * z / samples
    centre = (share + z * z / (2 * samples)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / samples + z * z / (4 * samples * samples))
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == samples else min(1.0, centre + half)
    return Interval(share, low, high)


def mcnemar(table: Table) -> float:
    """Return the exact two-sided p-value of equal accuracy (McNemar 1947): binomial in the samples that differ."""
    from scipy.stats import binomtest

    differing = table.first + table.second
    return 1.0 if differing == 0 else float(binomtest(table.second, differing, 0.5).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (Holm 1979), in the order given."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def paired_difference(table: Table, confidence: float = CONFIDENCE) -> Interval:
    """Return second minus first share with an interval for pairs.

    Notes
    -----
    Newcombe 1998, Improved confidence intervals for the difference between binomial proportions based on paired data,
    Statistics in Medicine 17, 2635: method 10, from Wilson's intervals of both shares and their correlation.
    """
    n = table.samples
    first = wilson(table.both + table.first, n, confidence)
    second = wilson(table.both + table.second, n, confidence)
    phi = _correlation(table)
    difference = second.value - first.value
    below = _distance(second.value - second.low, first.high - first.value, phi)
    above = _distance(second.high - second.value, first.value - first.low, phi)
    return Interval(difference, difference - below, difference + above)


def _distance(a: float, b: float, phi: float) -> float:
    return math.sqrt(max(0.0, a * a - 2.0 * phi * a * b + b * b))


def _correlation(table: Table) -> float:
    """Return Newcombe's phi: a positive one is brought nearer to 0 by a correction for continuity."""
    rows = (table.both + table.first) * (table.second + table.neither)
    columns = (table.both + table.second) * (table.first + table.neither)
    if rows == 0 or columns == 0:
        return 0.0
    determinant = float(table.both * table.neither - table.first * table.second)
    if determinant > 0:
        determinant = max(determinant - table.samples / 2, 0.0)
    return determinant / math.sqrt(rows * columns)


def standing(difference: Interval, margin: float) -> Standing:
    """Say whether something is worse by more than a margin, from its gain with the interval.

    Parameters
    ----------
    difference
        How much better it is; a loss is negative.
    margin
        The loss that is still accepted, in the same units, positive.

    Returns
    -------
    standing
        ``not inferior`` where the whole interval lies above ``-margin``, ``inferior`` where it lies below, else
        ``open``: the samples are too few to tell.
    """
    if difference.low > -margin:
        return "not inferior"
    return "inferior" if difference.high < -margin else "open"


def bootstrap(statistic: Any, samples: int, generator: np.random.Generator, confidence: float = CONFIDENCE) -> Interval:
    """Return a statistic of all samples with the percentile bootstrap's interval (Efron 1979).

    Parameters
    ----------
    statistic
        Takes indices of samples, int64 ``[resamples, n]``, and returns a number for each row, ``[resamples]``. What
        is paired stays paired: both models answer the samples drawn.
    """
    value = float(statistic(np.arange(samples)[None])[0])
    rows = max(1, min(RESAMPLES, _MOST_INDICES // max(samples, 1)))
    found: list[Numbers] = []
    done = 0
    while done < RESAMPLES:
        count = min(rows, RESAMPLES - done)
        found.append(statistic(generator.integers(0, samples, (count, samples))))
        done += count
    tail = 50.0 * (1.0 - confidence)
    low, high = np.percentile(np.concatenate(found), [tail, 100.0 - tail])
    return Interval(value, float(low), float(high))


def mean_interval(values: Numbers, generator: np.random.Generator) -> Interval:
    """Return the mean of one number a sample, ``[n]``, with its bootstrap interval."""
    return bootstrap(lambda drawn: values[drawn].mean(axis=1), len(values), generator)


def signal_to_noise(exact: Numbers, approximate: Numbers) -> float:
    """Return 10 log10(sum(y^2) / sum((y - q)^2)) in dB: infinite where nothing differs."""
    noise = float(np.square(exact - approximate).sum())
    signal = float(np.square(exact).sum())
    if noise == 0.0:
        return math.inf
    return 10.0 * math.log10(signal / noise) if signal > 0.0 else -math.inf


def quantile(values: Numbers, share: float, confidence: float = CONFIDENCE) -> float | None:
    """Return a quantile, or None where there are too few values to know it.

    Notes
    -----
    The interval from order statistics has an upper end only if the largest of n values lies above the quantile with
    enough certainty: ``share ** n <= (1 - confidence) / 2`` (Hahn & Meeker 1991, section 5.2). At 95 % that is 36
    values for p90 and 368 for p99.
    """
    if share ** len(values) > (1.0 - confidence) / 2:
        return None
    return float(np.quantile(values, share))


def _normal_quantile(confidence: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(0.5 + confidence / 2)
