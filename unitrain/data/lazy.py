"""Arrays of which rows are read, and changed, when they are asked for."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unitrain.spec.errors import InputError

Array = npt.NDArray[Any]
Index = npt.NDArray[np.int64]


# So many times the rows that are asked for may be read, where they lie close together.
_DENSE = 3


class MappedFile:
    """An array in a file, of which the operating system reads what is touched.

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
        self._file = path.open("rb")
        self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        flat: Array = np.frombuffer(self._map, dtype, int(np.prod(shape, dtype=np.int64)), offset)
        self.array = flat.reshape(shape, order="F" if fortran else "C")
        self._offset = offset
        self._contiguous = not fortran

    def read(self, rows: Index) -> Array:
        """Copy rows out of the file.

        They are read, not touched in the mapping: of that the system may count 2 MiB as this process' memory for each
        row, and where rows come in random order the whole file.
        """
        if not len(rows) or not self._contiguous or not hasattr(os, "preadv"):
            return np.asarray(self.array[rows])
        span = int(rows.max()) - int(rows.min()) + 1
        if span != len(rows) and span <= _DENSE * len(rows):
            # Most of a stretch of the file: fewer calls to the system than one for every gap.
            start = int(rows.min())
            return self.read(np.arange(start, start + span))[rows - start]
        values: Array = np.empty((len(rows), *self.array.shape[1:]), self.array.dtype)
        target = values.reshape(-1).view(np.uint8).data
        size = values.nbytes // max(1, len(rows))
        # Rows that follow one another come in one go.
        starts = np.flatnonzero(np.diff(rows, prepend=-2) != 1).tolist()
        for first, end in zip(starts, [*starts[1:], len(rows)], strict=True):
            self._fill(target[first * size : end * size], self._offset + int(rows[first]) * size)
        return values

    def _fill(self, target: memoryview, start: int) -> None:
        while target:
            count = os.preadv(self._file.fileno(), [target], start)
            if count == 0:
                raise InputError("the file has become shorter while it is read", file=self._file.name)
            target, start = target[count:], start + count


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
