"""Parquet files that are larger than memory: read once, group of rows by group of rows, into files that give any row.

A batch is made of rows from all over the file, and Parquet gives a row only with all of its group. So the numbers are
written out twice, row by row for batches and column by column for what is fitted, and the files vanish with the run.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unitrain.data.columns import as_numbers
from unitrain.data.files import check_unpacked, import_library
from unitrain.data.lazy import Array, ArrayFile, Index, Lazy
from unitrain.data.raw import Origin
from unitrain.data.sources.array_file import BYTES_NUMBER
from unitrain.machine import available_memory
from unitrain.spec.errors import InputError

# Rows that are converted together, and up to which a request counts as a batch.
_PIECE = 2**16
_BYTES = 8


class ColumnsOnDemand(Mapping[str, Any]):
    """The columns of a file by name, each read as a whole when it is asked for, and not kept."""

    def __init__(self, path: Path) -> None:
        pa = import_library("pyarrow", "pyarrow", "reading Parquet")
        parquet = import_library("pyarrow.parquet", "pyarrow", "reading Parquet")
        try:
            self.file = parquet.ParquetFile(path)
        except (pa.ArrowException, OSError) as error:
            raise InputError(
                f"not a Parquet file: {(str(error).splitlines() or ['damaged'])[0]}", file=str(path)
            ) from None
        # As numbers of eight bytes: a column of one value takes next to nothing in the file.
        values = self.file.metadata.num_rows * self.file.metadata.num_columns
        check_unpacked(path, 8 * values, path.stat().st_size, in_memory=False)
        self.path = path
        self.rows: int = self.file.metadata.num_rows
        self._names: list[str] = list(self.file.schema_arrow.names)
        if self.rows == 0:
            raise InputError("the file has a header and no rows", file=str(path))
        if len(set(self._names)) < len(self._names):
            raise InputError("a column stands twice", file=str(path))

    def __getitem__(self, name: str) -> Any:
        if name not in self._names:
            raise KeyError(name)
        return self.file.read(columns=[name]).column(0).combine_chunks()

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def too_large(self) -> bool:
        """Tell whether preparing all of it in memory would take more than half of what is available."""
        return self.rows * len(self._names) * BYTES_NUMBER > available_memory() // 2


def leave_numbers(columns: ColumnsOnDemand, names: Sequence[str]) -> dict[str, Lazy]:
    """Write columns of numbers to files in the folder for temporary ones, and return them as float64 ``[n]``.

    Raises
    ------
    InputError
        A value is no number, or is infinite; names its row.
    """
    if not names:
        return {}
    with tempfile.TemporaryDirectory(prefix="unitrain-") as folder:
        by_row, by_column = Path(folder, "rows"), Path(folder, "columns")
        _write(columns, names, by_row, by_column)
        # Open files stay readable when their names are gone.
        float64 = np.dtype(np.float64)
        numbers = _Numbers(
            ArrayFile(by_row, 0, (columns.rows, len(names)), float64, False),
            ArrayFile(by_column, 0, (len(names) * columns.rows,), float64, False),
        )
    return {name: numbers.column(position) for position, name in enumerate(names)}


def _write(columns: ColumnsOnDemand, names: Sequence[str], by_row: Path, by_column: Path) -> None:
    origin = Origin(str(columns.path), "row")
    first = 0
    with by_row.open("wb") as rows, by_column.open("wb") as whole:
        for batch in columns.file.iter_batches(_PIECE, columns=list(names)):
            found = {name: batch.column(position) for position, name in enumerate(batch.schema.names)}
            block = np.empty((batch.num_rows, len(names)))
            for position, name in enumerate(names):
                try:
                    block[:, position] = as_numbers(found[name], name, origin)
                except InputError:
                    as_numbers(columns[name], name, origin)  # names the row in the whole file
                    raise
                whole.seek((position * columns.rows + first) * _BYTES)
                whole.write(np.ascontiguousarray(block[:, position]).data)
            rows.write(block.data)
            first += batch.num_rows


class _Numbers:
    """The numbers of a table ``[rows, columns]``, which lie in one file by rows and in another by columns."""

    def __init__(self, by_row: ArrayFile, by_column: ArrayFile) -> None:
        self._by_row, self._by_column = by_row, by_column
        self._count = len(by_row)
        self._last: tuple[Index, Array] | None = None
        self._reading = threading.Lock()

    def column(self, position: int) -> Lazy:
        """Return one column."""

        def make(rows: Index) -> Array:
            if len(rows) > _PIECE:
                return self._by_column.read(rows + position * self._count)
            return self._batch(rows)[:, position].copy()

        return Lazy(make, np.arange(self._count), (), np.float64)

    def _batch(self, rows: Index) -> Array:
        """Read whole rows: the columns of a batch are asked for one after the other."""
        with self._reading:
            if self._last is None or not np.array_equal(self._last[0], rows):
                self._last = rows, self._by_row.read(rows)
            return self._last[1]
