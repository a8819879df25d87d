"""Arrays that stay in their files: ``.npy``, and those of an ``.npz`` that is not compressed."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import numpy as np

from unitrain.data.lazy import Array, ArrayFile, Index, Lazy
from unitrain.data.sources.arrays import plain_values, read_header
from unitrain.machine import available_memory
from unitrain.spec.errors import InputError

# Bytes for each number of an input while it is prepared in memory: as read, drawn into parts, scaled, and the result.
BYTES_PIXEL, BYTES_NUMBER = 10, 28
_SIGNATURE_BYTES = 30  # of a zip member's own header, before its name; see APPNOTE.TXT, 4.3.7


def open_npy(path: Path) -> ArrayFile:
    """Open the array of an ``.npy``. Raises `InputError` for a file that is none, or too short."""
    with path.open("rb") as stream:
        return _map(stream, path, path.stem, path.stat().st_size)


def open_npz(path: Path, keys: Iterable[str]) -> dict[str, ArrayFile] | None:
    """Open arrays of an ``.npz``; None where one is compressed. Raises `InputError` for a damaged file."""
    found: dict[str, ArrayFile] = {}
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as stream:
            for key in keys:
                entry = archive.NameToInfo.get(f"{key}.npy")
                if entry is None or entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
                    return None
                stream.seek(entry.header_offset)
                header = stream.read(_SIGNATURE_BYTES)
                lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
                start = entry.header_offset + _SIGNATURE_BYTES + lengths
                stream.seek(start)
                found[key] = _map(stream, path, key, start + entry.file_size)
    # NotImplementedError: a zip of a later version than Python knows.
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise InputError(f"the arrays cannot be read: {error}", file=str(path)) from None
    return found


def _map(stream: IO[bytes], path: Path, name: str, end: int) -> ArrayFile:
    try:
        shape, fortran, dtype = read_header(stream)
        size = math.prod(shape) * dtype.itemsize
        if dtype.hasobject:
            raise InputError(
                "the arrays cannot be read: Python objects are not allowed",
                file=str(path),
                hint="save numbers, not Python objects",
            )
        if stream.tell() + size > end:
            raise InputError(
                f"array '{name}' declares more than the file can hold",
                file=str(path),
                found=f"shape {shape} of {dtype}",
            )
        return ArrayFile(path, stream.tell(), shape, dtype, fortran)
    except (ValueError, OSError, EOFError) as error:
        raise InputError(f"the arrays cannot be read: {error}", file=str(path)) from None


def lazy_values(stored: ArrayFile, path: Path, key: str) -> Array | Lazy:
    """Leave numbers and pictures in their file; what cannot stay there comes as `plain_values` gives it."""
    if stored.ndim == 0 or stored.dtype.kind not in "biuf" or not stored.size:
        return plain_values(stored.read_all(), path, key)

    def make(rows: Index) -> Array:
        return plain_values(stored.read(rows), path, key)

    first = make(np.zeros(1, dtype=np.int64))
    return Lazy(make, np.arange(len(stored)), first.shape[1:], first.dtype)


def should_stream(stream: str, inputs: Iterable[ArrayFile]) -> bool:
    """Tell whether inputs are to stay in their files, as the recipe says or as memory is short."""
    if stream != "auto":
        return stream == "always"
    needed: int = sum(
        array.size * (BYTES_PIXEL if array.dtype == np.uint8 and array.ndim >= 3 else BYTES_NUMBER) for array in inputs
    )
    return needed > available_memory() // 2


def check_target(values: Array | ArrayFile, path: Path, key: str) -> None:
    """See that a target fits into memory, where all of it is held. Raises `InputError`."""
    if values.size * 8 > available_memory() // 2:
        raise InputError(
            f"target '{key}' is too large for memory: inputs stream from their files, targets are held",
            file=str(path),
            found=f"{values.size:,} numbers",
        )
