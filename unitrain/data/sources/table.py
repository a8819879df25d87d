"""CSV, TSV and Parquet: read by pyarrow, placed by line, typed by `unitrain.data.columns`."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unitrain.data.columns import ColumnKind, as_numbers, as_words, check_roles, infer_kind
from unitrain.data.files import check_unpacked, find_file, import_library
from unitrain.data.lazy import Lazy
from unitrain.data.raw import Array, Origin, Parts, Raw
from unitrain.data.sources.parquet import ColumnsOnDemand, leave_numbers
from unitrain.spec.columns import MISSING_WORDS
from unitrain.spec.errors import InputError
from unitrain.spec.sources.table import Table

PARQUET = (".parquet", ".pq")
TEXT = (".csv", ".tsv", ".txt")


@dataclass(frozen=True)
class Columns:
    """A file as pyarrow columns, not yet typed."""

    values: Mapping[str, Any]
    origin: Origin
    count: int


def read_columns(path: Path, separator: str | None = None, missing_values: Sequence[str] = MISSING_WORDS) -> Columns:
    """Read a table by its suffix.

    Raises
    ------
    InputError
        Unknown suffix, ragged row (with its line), a header that names a column twice or not at all, no
        rows, or content that is neither UTF-8 text nor Parquet.
    """
    suffix = path.suffix.lower()
    if suffix in PARQUET:
        table = _read_parquet(path)
    elif suffix in TEXT:
        separator = separator or ("\t" if suffix == ".tsv" else ",")
        table = _read_text(path, separator, missing_values)
    else:
        raise InputError(
            "a table is told by its suffix", file=str(path), found=suffix, allowed=", ".join(TEXT + PARQUET)
        )
    if table.count == 0:
        raise InputError("the file has a header and no rows", file=str(path))
    return table


def _read_parquet(path: Path) -> Columns:
    pa = import_library("pyarrow", "pyarrow", "reading Parquet")
    parquet = import_library("pyarrow.parquet", "pyarrow", "reading Parquet")
    try:
        file = parquet.ParquetFile(path)
        # As numbers of eight bytes: a column of one value takes next to nothing in the file.
        check_unpacked(path, 8 * file.metadata.num_rows * file.metadata.num_columns, path.stat().st_size)
        table = file.read()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"not a Parquet file: {_first_line(error)}", file=str(path)) from None
    columns = {name: table.column(index).combine_chunks() for index, name in enumerate(table.column_names)}
    if len(columns) < table.num_columns:
        raise InputError("a column stands twice", file=str(path))
    return Columns(columns, Origin(str(path), "row"), table.num_rows)


def _read_text(path: Path, separator: str, missing_values: Sequence[str]) -> Columns:
    pa = import_library("pyarrow", "pyarrow", "reading CSV")
    arrow_csv = import_library("pyarrow.csv", "pyarrow", "reading CSV")
    import pyarrow.compute as pc

    header, header_lines = _header(path, separator)
    try:
        table = arrow_csv.read_csv(
            path,
            arrow_csv.ReadOptions(column_names=header, skip_rows=header_lines),
            arrow_csv.ParseOptions(delimiter=separator, newlines_in_values=True),
            # All as text: what a column is, is decided by our rules, with our messages.
            arrow_csv.ConvertOptions(column_types=dict.fromkeys(header, pa.string())),
        )
    except pa.ArrowInvalid as error:
        raise _ragged(path, separator, header) or InputError(
            f"not a table: {_first_line(error)}", file=str(path)
        ) from None
    nothing, blank = pa.scalar(None, pa.string()), pa.array(missing_values, pa.string())
    columns = {}
    for name in header:
        values = pc.utf8_trim_whitespace(table.column(name).combine_chunks())
        columns[name] = pc.if_else(pc.is_in(values, value_set=blank), nothing, values)
    origin = Origin(str(path), "line", read_lines=lambda: _row_lines(path, separator))
    return Columns(columns, origin, table.num_rows)


def _header(path: Path, separator: str) -> tuple[list[str], int]:
    """Return the column names and the number of lines that they take up, blank lines before them included."""
    with _open(path) as file:
        reader = csv.reader(file, delimiter=separator)
        try:
            header = next((record for record in reader if record), None)
        except (csv.Error, UnicodeDecodeError) as error:
            raise _not_text(path, error) from None
        lines = reader.line_num
    if header is None:
        raise InputError("the file is empty", file=str(path))
    names = [name.strip() for name in header]
    for position, name in enumerate(names):
        if not name:
            raise InputError(f"column {position + 1} has no name", file=str(path), line=lines)
        if name in names[:position]:
            raise InputError(f"column '{name}' stands twice", file=str(path), line=lines)
    if all(_is_float(name) for name in names):
        raise InputError(
            "the first line holds numbers, not column names",
            file=str(path),
            line=lines,
            hint="put a line with the names of the columns above it",
        )
    return names, lines


def _records(path: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Go through the records with the line on which each starts; blank lines are none."""
    with _open(path) as file:
        reader = csv.reader(file, delimiter=separator)
        start = 1
        for record in reader:
            if record:
                yield start, record
            start = reader.line_num + 1


def _ragged(path: Path, separator: str, header: Sequence[str]) -> InputError | None:
    """Find the first row that has not as many fields as the header; slow and exact, for the message."""
    try:
        for line, record in _records(path, separator):
            if len(record) != len(header):
                return InputError(
                    "the row has another number of fields than the header",
                    file=str(path),
                    line=line,
                    found=f"{len(record)} fields",
                    allowed=f"{len(header)}: {', '.join(header)}",
                )
    except (csv.Error, UnicodeDecodeError) as error:
        return _not_text(path, error)
    return None


def _not_text(path: Path, error: Exception) -> InputError:
    """Say why a file is no table of text, with the line of the first byte that is not UTF-8."""
    if isinstance(error, csv.Error):
        return InputError(f"not a table: {error}", file=str(path))
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8-sig")
            except UnicodeDecodeError as found:
                bad = line[found.start : found.start + 1].hex()
                return InputError("not UTF-8 text", file=str(path), line=number, found=f"byte {bad}")
    return InputError("not UTF-8 text", file=str(path))


def _row_lines(path: Path, separator: str) -> list[int]:
    """Return the line of each row, the header left out; as far as the file can be followed."""
    lines: list[int] = []
    try:
        for line, _ in _records(path, separator):
            lines.append(line)  # one by one: what was found before an error is of use
    except (csv.Error, UnicodeDecodeError):
        pass
    return lines[1:]


def _open(path: Path) -> Any:
    return path.open(encoding="utf-8-sig", newline="")


def _is_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or ["damaged"])[0]


def typed(columns: Columns, name: str, kind: ColumnKind) -> Array:
    """Return one column as float64 or as object of str."""
    # Text is read as categories are: as it stands.
    convert = as_numbers if kind == "numeric" else as_words
    return convert(columns.values[name], name, columns.origin)


def target_values(columns: Columns, name: str, kind: ColumnKind) -> Array:
    """Return a target: int64 when all are whole numbers, float64 when some are not, else words."""
    values = typed(columns, name, kind)
    whole = kind == "numeric" and bool(np.all(values == np.round(values)) and np.all(np.abs(values) < 2**53))
    return values.astype(np.int64) if whole else values


@dataclass(frozen=True)
class Roles:
    """What each column of a table is to the model."""

    features: Mapping[str, ColumnKind]
    targets: Mapping[str, ColumnKind]
    weight: str | None = None
    group: str | None = None


def find_roles(source: Table, columns: Columns, group: str | None) -> Roles:
    """Infer the roles that the recipe does not state. Raises `InputError` for a column that is not there."""
    file, header = columns.origin.file, columns.values
    targets = [name for names in source.target_columns().values() for name in names]
    weight = next(iter(source.with_role("weight")), None)
    check_roles(source.columns, header, file)
    check_roles(targets, header, file, "source.target")
    check_roles([name for name in (weight, group) if name], header, file, "weight or group")
    special = {*targets, weight, group}
    features: dict[str, ColumnKind] = {}
    for name, values in header.items():
        stated = source.columns.get(name)
        if name in special or stated == "ignore":
            continue
        features[name] = stated if stated in ("numeric", "category", "text") else infer_kind(values, name, file)
    if not features:
        raise InputError("no column is left as a feature", file=file, found=", ".join(header))
    return Roles(features, {name: target_kind(header[name], name, file) for name in targets}, weight, group)


def target_kind(values: Any, name: str, file: str) -> ColumnKind:
    """Infer what a target column is; names that differ in every row are still names."""
    try:
        return infer_kind(values, name, file)
    except InputError as error:
        # Many classes of one row each are found, and told better, by the split.
        if "identifier" in str(error):
            return "category"
        raise


def table_raw(columns: Columns, roles: Roles, numbers: Mapping[str, Lazy] | None = None) -> Raw:
    """Type the columns by their roles. Raises `InputError` for a missing column or a value of wrong type.

    ``numbers`` are features that are left in a file.
    """
    file = columns.origin.file
    weight, group = roles.weight, roles.group
    needed = [*roles.features, *roles.targets, *(name for name in (weight, group) if name)]
    check_roles(needed, columns.values, file, "the training file")
    left: Mapping[str, Any] = numbers or {}
    return Raw(
        {name: left[name] if name in left else typed(columns, name, kind) for name, kind in roles.features.items()},
        {name: target_values(columns, name, kind) for name, kind in roles.targets.items()},
        columns.origin,
        np.arange(columns.count),
        weight=None if weight is None else typed(columns, weight, "numeric"),
        group=None if group is None else typed(columns, group, "category"),
        texts={name: None for name, kind in roles.features.items() if kind == "text"},
    )


def read(source: Table, folder: Path, group: str | None, stream: str) -> Parts:
    """Read the file a recipe names and those of the other parts; types come from the first.

    ``stream`` as in the recipe.
    """
    names = {"train": source.file, "validation": source.validation_file, "test": source.test_file}
    paths = {part: find_file(name, folder) for part, name in names.items() if name is not None}
    parquet = all(path.suffix.lower() in PARQUET for path in paths.values())
    if stream == "always" and not parquet:
        raise InputError("text does not stream", field=("stream",), allowed="always for Parquet files")
    parts: Parts = {}
    roles: Roles | None = None
    if parquet and stream != "never":
        left = {part: ColumnsOnDemand(path) for part, path in paths.items()}
        if stream == "always" or any(columns.too_large() for columns in left.values()):
            for part, values in left.items():
                columns = Columns(values, Origin(str(values.path), "row"), values.rows)
                roles = roles or find_roles(source, columns, group)
                check_roles(roles.features, values, columns.origin.file, "the training file")
                numbers = leave_numbers(values, [name for name, kind in roles.features.items() if kind == "numeric"])
                parts[part] = table_raw(columns, roles, numbers)
            return parts
    for part, path in paths.items():
        columns = read_columns(path, source.separator, source.missing_values)
        roles = roles or find_roles(source, columns, group)
        parts[part] = table_raw(columns, roles)
    return parts
