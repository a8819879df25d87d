"""Cutting the rows of a series into samples: what was seen, and what came after it."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from unitrain.data.raw import Array, Raw, Rows
from unitrain.spec.data import Window
from unitrain.spec.errors import InputError


def starts(raw: Raw, window: Window, *, ahead: bool = False, part: str = "") -> Rows:
    """Return where samples start, int64 ``[sample]``: every ``stride`` rows, as far as whole samples fit.

    Rows that were dropped leave a hole, and no sample reaches over it. With ``ahead`` the rows to be forecast need
    not be there; samples are then placed so that the last one sees the last row.

    Raises
    ------
    InputError
        No sample fits; ``part`` is then named.
    """
    needed = window.length + (0 if ahead else window.horizon)
    last = len(raw) - needed
    first = last % window.stride if ahead and last >= 0 else 0
    found = np.arange(first, last + 1, window.stride)
    whole = raw.rows[found + needed - 1] - raw.rows[found] == needed - 1
    if not whole.any():
        raise InputError(
            f"{f'the {part} part' if part else 'the data'} has too few rows for a sample",
            file=raw.origin.file,
            field=("window",),
            found=f"{len(raw):,} rows" + ("" if last < 0 else ", with rows dropped in every stretch of them"),
            allowed=f"at least {needed:,} in a row: length {window.length}"
            + ("" if ahead else f" + horizon {window.horizon}"),
            hint="shorten length or horizon, or give the part a larger fraction" if part else None,
        )
    return np.asarray(found[whole])


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


def naive_errors(raw: Raw, values: Array, window: Window) -> tuple[float, ...]:
    """Return the mean absolute difference of rows a season apart, for each column of ``[row]`` or ``[row, column]``.

    The scale of MASE (Hyndman & Koehler 2006), over the training span; pairs across dropped rows are left out, and a
    series that never changes has none (0).
    """
    columns = values.reshape(len(values), -1).astype(np.float64)
    season = window.season
    apart = raw.rows[season:] - raw.rows[:-season] == season
    differences = np.abs(columns[season:] - columns[:-season])[apart]
    if not len(differences):
        return (0.0,) * columns.shape[1]
    return tuple(float(mean) for mean in differences.mean(axis=0))


def latest(raw: Raw, window: Window, samples: int) -> Raw:
    """Keep the last rows, enough for so many samples."""
    rows = (samples - 1) * window.stride + window.length + window.horizon
    return raw if rows >= len(raw) else raw.take(np.arange(len(raw) - rows, len(raw)))


def _cut(values: Array, begin: Rows, length: int) -> Array:
    # The view puts the rows of a sample on its last axis.
    view = sliding_window_view(values, length, axis=0)
    return np.ascontiguousarray(np.moveaxis(view[begin], -1, 1))
