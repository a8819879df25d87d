"""NumPy's ``.npz`` and ``.npy``: named arrays, never unpickled, sizes checked before they are read."""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from unitrain.data.files import check_unpacked
from unitrain.data.raw import Array, Origin, Raw
from unitrain.spec.errors import InputError, unknown_name

_MAXIMUM_RATIO = 1040  # as deflate's


def read_arrays(path: Path, keys: Sequence[str] | None = None) -> dict[str, Array]:
    """Read the arrays of an ``.npz`` (all, or those of ``keys``), or the one of an ``.npy`` under its stem.

    Raises
    ------
    InputError
        The file is damaged, holds Python objects, lacks a key, or declares more than it can hold.
    """
    try:
        if path.suffix == ".npy":
            with path.open("rb") as stream:
                _check_size(stream, path.stem, path.stat().st_size, path)
            return {path.stem: np.load(path, allow_pickle=False)}
        _check_sizes(path)
        with np.load(path, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise InputError("not an npz file", file=str(path))
            for key in keys or ():
                if key not in archive.files:
                    raise unknown_name("key", key, archive.files).located(file=str(path))
            return {key: archive[key] for key in (archive.files if keys is None else dict.fromkeys(keys))}
    # NotImplementedError and RuntimeError: a packing that Python lacks, an encrypted file.
    except (
        ValueError,
        OSError,
        EOFError,
        KeyError,
        RuntimeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        hint = "save numbers, not Python objects" if "allow_pickle" in str(error) else None
        raise InputError(f"the arrays cannot be read: {error}", file=str(path), hint=hint) from None


def _check_sizes(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.filename.endswith(".npy"):
                with archive.open(entry) as stream:
                    size = _check_size(stream, entry.filename[:-4], entry.compress_size * _MAXIMUM_RATIO, path)
                check_unpacked(path, size, entry.compress_size, f"array '{entry.filename[:-4]}'")


def _check_size(stream: IO[bytes], name: str, most: int, path: Path) -> int:
    """Compare the size an array declares with the most that can be there, before NumPy allocates it; return it."""
    shape, _, dtype = read_header(stream)
    size = math.prod(shape) * dtype.itemsize
    if not dtype.hasobject and size > most:
        raise InputError(
            f"array '{name}' declares more than the file can hold",
            file=str(path),
            found=f"shape {shape} of {dtype}",
        )
    return size


def read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read shape, whether the first axis lies closest, and dtype of an array; the numbers come next.

    Raises
    ------
    ValueError
        The header is damaged.
    """
    version = np.lib.format.read_magic(stream)
    first = version == (1, 0)
    read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
    try:
        return read(stream)
    except tokenize.TokenError as error:  # NumPy takes apart what is no literal, to see whether Python 2 wrote it
        raise ValueError(f"the header is damaged: {error.args[0]}") from None


def plain_values(values: Array, path: Path, key: str) -> Array:
    """Bring an array to the dtypes of `Raw`."""
    if values.ndim == 0:
        raise InputError(f"'{key}' is a single number; the samples lie on the first axis", file=str(path))
    if values.dtype.kind in "US":
        text = values.astype(str)
        if text.ndim != 1:
            raise InputError(f"'{key}': text has one axis", file=str(path), found=f"shape {values.shape}")
        return np.array([str(item) or None for item in text], dtype=object)
    if values.dtype == np.uint8 and values.ndim >= 3:
        return values[..., None] if values.ndim == 3 else values
    if values.dtype.kind in "biu":
        return values.astype(np.int64)
    if values.dtype.kind == "f":
        return values.astype(np.float64)
    raise InputError(
        f"'{key}' has a type that is not read",
        file=str(path),
        found=str(values.dtype),
        allowed="numbers, booleans, text",
    )


def arrays_raw(
    path: Path,
    features: Mapping[str, Any],
    targets: Mapping[str, Array],
    weight: Array | None,
    group: Array | None,
    pictures: Collection[str],
) -> Raw:
    """Put plain or `Lazy` arrays together; ``pictures`` are the targets that are inputs too.

    Raises
    ------
    InputError
        They differ in length.
    """
    arrays = [*features.items(), *targets.items(), ("weight", weight), ("group", group)]
    lengths = [(key, len(values)) for key, values in arrays if values is not None]
    if len({length for _, length in lengths}) > 1:
        raise InputError(
            "the arrays differ in their number of samples",
            file=str(path),
            found=", ".join(f"{key} {length:,}" for key, length in dict.fromkeys(lengths)),
        )
    labels = {
        # A uint8 label map is no picture: take off the channel axis that pixels were given.
        key: values if key in pictures or values.dtype != np.uint8 else _as_labels(values)
        for key, values in targets.items()
    }
    groups: Any = None if group is None else np.array([str(item) for item in group], dtype=object)
    rows = np.arange(lengths[0][1])
    return Raw(dict(features), labels, Origin(str(path)), rows, weight=weight, group=groups)


def _as_labels(values: Array) -> Array:
    plain = values[..., 0] if values.shape[-1] == 1 else values
    return plain.astype(np.int64)
