"""Cutting the rows of series into samples: what was seen, and what came after it."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from unitrain.data.raw import Array, Raw, Rows
from unitrain.spec.data import Window
from unitrain.spec.errors import InputError


def stretches(raw: Raw) -> list[tuple[int, int]]:
    """Return where the rows of each series begin and end: all rows, where there is one."""
    if raw.series is None or not len(raw):
        return [(0, len(raw))]
    cuts = [0, *(np.flatnonzero(raw.series[1:] != raw.series[:-1]) + 1).tolist(), len(raw)]
    return list(itertools.pairwise(cuts))


def starts(raw: Raw, window: Window, *, ahead: bool = False, part: str = "") -> Rows:
    """Return where samples start, int64 ``[sample]``: every ``stride`` rows of a series, as far as whole samples fit.

    Rows that were dropped leave a hole, and no sample reaches over it, nor from one series into another. With ``ahead``
    the rows to be forecast need not be there; samples are then placed so that the last one sees the last row.

    Raises
    ------
    InputError
        No sample fits; ``part`` is then named.
    """
    needed = window.length + (0 if ahead else window.horizon)
    pieces = stretches(raw)
    found = np.concatenate([_starts(begin, end, needed, window, ahead) for begin, end in pieces])
    steps = _steps(raw)
    whole = steps[found + needed - 1] - steps[found] == needed - 1
    if not whole.any():
        longest = max(end - begin for begin, end in pieces)
        raise InputError(
            f"{f'the {part} part' if part else 'the data'} has too few rows for a sample",
            file=raw.origin.file,
            field=("window",),
            found=f"{longest:,} rows"
            + (f" in the longest of {len(pieces):,} series" if raw.series is not None else "")
            + ("" if longest < needed else ", with rows dropped in every stretch of them"),
            allowed=f"at least {needed:,} in a row: length {window.length}"
            + ("" if ahead else f" + horizon {window.horizon}"),
            hint="shorten length or horizon, give the part a larger fraction, or let it see the rows before it: "
            "`split: {look_back: true}`"
            if part
            else None,
        )
    return np.asarray(found[whole])


def _starts(begin: int, end: int, needed: int, window: Window, ahead: bool) -> Rows:
    last = end - begin - needed
    first = last % window.stride if ahead and last >= 0 else 0
    return np.arange(begin + first, begin + last + 1, window.stride)


def _steps(raw: Raw) -> Rows:
    return raw.rows if raw.steps is None else raw.steps


def seen(values: Array, begin: Rows, window: Window) -> Array:
    """Cut rows ``[row, ...]`` into what samples see: ``[sample, length, ...]``."""
    return _cut(values, begin, window.length)


def forecast(values: Array, begin: Rows, window: Window) -> Array:
    """Cut rows ``[row, ...]`` into what samples forecast: ``[sample, horizon, ...]``."""
    return _cut(values, begin + window.length, window.horizon)


def seasonal_naive(values: Array, begin: Rows, window: Window) -> Array:
    """Forecast for each row what was seen a season before, or several where the season is over: ``[sample, horizon,
    ...]``.
    """
    steps = np.arange(window.horizon) % window.season - window.season
    return np.asarray(values[begin[:, None] + window.length + steps])


def naive_errors(raw: Raw, values: Array, window: Window) -> list[tuple[float, ...]]:
    """Return the mean absolute difference of rows a season apart: of each series, for each column of ``[row, ...]``.

    The scale of MASE (Hyndman & Koehler 2006), over the training span; pairs across dropped rows are left out, and a
    series that never changes has none (0).
    """
    columns = values.reshape(len(values), -1).astype(np.float64)
    season, steps = window.season, _steps(raw)
    found = []
    for begin, end in stretches(raw):
        earlier, later = slice(begin, max(begin, end - season)), slice(min(begin + season, end), end)
        apart = steps[later] - steps[earlier] == season
        with np.errstate(over="ignore"):  # an infinite error is answered where it is of use
            differences = np.abs(columns[later] - columns[earlier])[apart]
            means = differences.mean(axis=0) if len(differences) else np.zeros(columns.shape[1])
        found.append(tuple(float(mean) for mean in means))
    return found


def latest(raw: Raw, window: Window, samples: int) -> Raw:
    """Keep the last rows, enough for so many samples; of many series those of each, in proportion to its length."""
    needed = window.length + window.horizon
    pieces = stretches(raw)
    fitting = np.array([max(0, (end - begin - needed) // window.stride + 1) for begin, end in pieces])
    if samples >= fitting.sum():
        return raw
    shares = samples * fitting / fitting.sum()
    kept = np.floor(shares).astype(np.int64)
    # What rounding down has left over goes where most was cut off.
    kept[np.argsort(kept - shares, kind="stable")[: samples - int(kept.sum())]] += 1
    rows = [
        np.arange(end - min(end - begin, (count - 1) * window.stride + needed), end)
        for (begin, end), count in zip(pieces, kept.tolist(), strict=True)
        if count
    ]
    return raw.take(np.concatenate(rows))


def _cut(values: Array, begin: Rows, length: int) -> Array:
    # The view puts the rows of a sample on its last axis.
    view = sliding_window_view(values, length, axis=0)
    return np.ascontiguousarray(np.moveaxis(view[begin], -1, 1))
