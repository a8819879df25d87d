"""Arrays of which rows are read, and changed, when they are asked for."""

from __future__ import annotations

import math
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from unitrain.spec.errors import InputError

Array = npt.NDArray[Any]
Index = npt.NDArray[np.int64]


# So many times the rows that are asked for may be read, where they lie close together.
_DENSE = 3
# Of an array that is laid by rows, held at a time.
_PIECE_BYTES = 32 * 2**20


class ArrayFile:
    """An array in a file, of which the rows that are asked for are read.

    Nothing is mapped into memory: a file that becomes shorter would end the process, and of a mapping the system may
    count 2 MiB as this process' memory for each row.

    Parameters
    ----------
    path
        The file.
    offset
        Byte at which the numbers begin.
    shape, dtype, fortran
        Of the array, which the file must hold as a whole.
    """

    def __init__(self, path: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any], fortran: bool) -> None:
        self.shape, self.dtype = shape, dtype
        self._path, self._offset = path, offset
        self._file: IO[bytes] = path.open("rb")
        self._fortran = fortran and len(shape) > 1
        self._lock = threading.RLock()

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def read_all(self) -> Array:
        """Read the whole array. Raises `InputError` where the file has become shorter."""
        values: Array = np.empty(self.size, self.dtype)
        self._fill(values, self._offset)
        return values.reshape(self.shape, order="F" if self._fortran else "C")

    def read(self, rows: Index) -> Array:
        """Read rows. Raises `InputError` where the file has become shorter."""
        if self._fortran:
            with self._lock:
                if self._fortran:
                    try:
                        self._lay_by_rows()
                    except OSError as error:
                        raise InputError(
                            f"the array lies by columns, and a copy by rows cannot be written: {error.strerror}",
                            file=str(self._path),
                            hint=f"free some of {tempfile.gettempdir()}, or name another folder by TMPDIR",
                        ) from None
        if not len(rows):
            return np.empty((0, *self.shape[1:]), self.dtype)
        span = int(rows.max()) - int(rows.min()) + 1
        if span != len(rows) and span <= _DENSE * len(rows):
            # Most of a stretch of the file: fewer calls to the system than one for every gap.
            start = int(rows.min())
            return self.read(np.arange(start, start + span))[rows - start]
        values: Array = np.empty((len(rows), *self.shape[1:]), self.dtype)
        size = values.nbytes // len(rows)
        # Rows that follow one another come in one go.
        starts = np.flatnonzero(np.diff(rows, prepend=-2) != 1).tolist()
        for first, end in zip(starts, [*starts[1:], len(rows)], strict=True):
            self._fill(values[first:end], self._offset + int(rows[first]) * size)
        return values

    def _lay_by_rows(self) -> None:
        """Copy an array whose columns lie together to a file without a name, in which its rows do.

        A row of it lies in as many places as it has numbers.
        """
        count, width = self.shape[0], math.prod(self.shape[1:])
        size = self.dtype.itemsize
        length = max(1, _PIECE_BYTES // max(1, width * size))
        copy = tempfile.TemporaryFile(prefix="unitrain-")  # noqa: SIM115  # open as long as the array
        for first in range(0, count, length):
            columns: Array = np.empty((width, min(length, count - first)), self.dtype)
            for number, column in enumerate(columns):
                self._fill(column, self._offset + (number * count + first) * size)
            # The first of the axes that are left varies fastest in the file, and the last in a row.
            block = columns.reshape(*self.shape[:0:-1], -1).transpose()
            copy.write(np.ascontiguousarray(block).reshape(-1).view(np.uint8).data)
        copy.flush()
        self._file, self._offset, self._fortran = copy, 0, False

    def _fill(self, values: Array, start: int) -> None:
        """Read what lies from a byte on into an array without gaps."""
        if not values.nbytes:
            return
        target = values.reshape(-1).view(np.uint8).data
        while target:
            count = self._read_into(target, start)
            if count == 0:
                raise InputError("the file has become shorter while it is read", file=str(self._path))
            target, start = target[count:], start + count

    def _read_into(self, target: memoryview, start: int) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._file.fileno(), [target], start)
        with self._lock:  # where the system has no way to read from a place
            self._file.seek(start)
            return self._file.readinto(target)  # type: ignore[attr-defined, no-any-return]  # IO does not say so


class Lazy:
    """An array whose rows are made when they are asked for: ``lazy[rows]`` is a plain array.

    Parameters
    ----------
    make
        Gives the rows at positions, int64 ``[k]``, of what there is in all.
    rows
        The positions that belong to this array, int64 ``[n]``.
    shape
        Of one row.
    dtype
        Of what ``make`` gives.
    """

    def __init__(
        self, make: Callable[[Index], Array], rows: Index, shape: tuple[int, ...], dtype: npt.DTypeLike
    ) -> None:
        self._make, self._rows = make, rows
        self.shape = (len(rows), *shape)
        self.dtype = np.dtype(dtype)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Array:
        """Make the rows at an integer, slice, array of positions, or bool ``[n]``."""
        rows = self._rows[index]
        return self._make(rows) if rows.ndim else self._make(rows[None])[0]

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        """Make all rows, for those who need them at once."""
        return np.asarray(self[:], dtype=dtype)

    def take(self, index: Array | slice) -> Lazy:
        """Return the rows at positions, a slice, or bool ``[n]``, without making them."""
        return Lazy(self._make, self._rows[index], self.shape[1:], self.dtype)


def take(values: Any, index: Array | slice) -> Any:
    """Choose rows: those of an array, another look at a `Lazy`."""
    return values.take(index) if isinstance(values, Lazy) else values[index]
