"""Pictures and labels for a model that somebody else trained."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from unitrain.data.decoders import Decoders
from unitrain.data.raw import Array
from unitrain.data.sources.image_folder import list_images, read_images
from unitrain.spec.errors import InputError, did_you_mean
from unitrain.spec.study import ImagePreprocessing

FILE, LABEL = "file", "label"


def read_pictures(
    folder: Path, spec: ImagePreprocessing, layout: Literal["nchw", "nhwc"]
) -> tuple[Array, list[Path], list[str]]:
    """Read the pictures of a folder and below as a model's input.

    Returns
    -------
    array
        Float32 ``[n, channel, height, width]`` or ``[n, height, width, channel]``.
    paths
        Where each came from.
    notes
        A line for each that does not decode, which is left out.
    """
    paths = list_images(folder)
    if not paths:
        raise InputError("the folder holds no images", file=str(folder))
    kind: Literal["grayscale", "rgb"] = "grayscale" if spec.channels == "grayscale" else "rgb"
    shape = (*spec.size, 1 if kind == "grayscale" else 3)
    pixels, kept, notes = read_images(paths, Decoders(0, kind, spec.size), shape, "skip")
    if not kept:
        raise InputError("no image could be read", file=str(folder), found=notes[0])
    if spec.channels == "bgr":
        pixels = pixels[..., ::-1]
    scaled = pixels.astype(np.float32) * np.float32(spec.scale)
    array: Array = (scaled - np.array(spec.mean, np.float32)) / np.array(spec.std, np.float32)
    if layout == "nchw":
        array = np.moveaxis(array, -1, 1)
    return np.ascontiguousarray(array), [paths[place] for place in kept], notes


def picture_labels(
    folder: Path, paths: Sequence[Path], labels: Path | None, classes: Sequence[str] | None
) -> Array | None:
    """Return the class number of each picture, int64 ``[n]``; None where nothing says it.

    Parameters
    ----------
    labels
        A CSV with the columns ``file``, below the folder, and ``label``. Without it the folders that the pictures lie
        in are the classes, if they lie in folders.
    classes
        Names in the order of the model's output; else labels are numbers, or folders count in the order of their names.
    """
    names = [path.relative_to(folder).as_posix() for path in paths]
    if labels is not None:
        found = _read_labels(labels)
        for name in names:
            if name not in found:
                raise InputError(f"no label for '{name}'", file=str(labels), hint=did_you_mean(name, found))
        return numbered([found[name] for name in names], classes, str(labels))
    tops = [name.partition("/")[0] if "/" in name else "" for name in names]
    if not all(tops):
        return None
    return numbered(tops, classes or sorted(set(tops)), str(folder))


def read_label_column(path: Path, count: int, classes: Sequence[str] | None) -> Array:
    """Read the column ``label`` of a CSV, a line for each sample in order, as class numbers int64 ``[n]``."""
    rows = _rows(path, (LABEL,))
    if len(rows) != count:
        raise InputError(
            "as many labels as samples are needed", file=str(path), found=str(len(rows)), allowed=str(count)
        )
    return numbered([row[LABEL] for row in rows], classes, str(path))


def numbered(labels: Sequence[str], classes: Sequence[str] | None, file: str) -> Array:
    """Turn labels into class numbers. Raises `InputError` for one that is none of the classes."""
    numbers = {name: number for number, name in enumerate(classes or ())}
    result = np.empty(len(labels), np.int64)
    for place, label in enumerate(labels):
        if label in numbers:
            result[place] = numbers[label]
        elif classes is None and label.isdecimal():
            result[place] = int(label)
        else:
            raise InputError(
                "this label is no class",
                file=file,
                found=label,
                allowed=", ".join(list(numbers)[:20]) or "numbers from 0 on",
                hint=did_you_mean(label, numbers)
                or (None if numbers else "name them in the order of the output: `classes: [...]` in --preprocess"),
            )
    return result


def _read_labels(path: Path) -> dict[str, str]:
    return {row[FILE]: row[LABEL] for row in _rows(path, (FILE, LABEL))}


def _rows(path: Path, columns: tuple[str, ...]) -> list[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8", newline="") as handle:
            reader = csv.DictReader(handle)
            head = reader.fieldnames or []
            for column in columns:
                if column not in head:
                    raise InputError(
                        f"the file has no column '{column}'",
                        file=str(path),
                        line=1,
                        found=", ".join(head) or "nothing",
                        allowed=", ".join(columns),
                        hint=did_you_mean(column, head),
                    )
            rows = list(reader)
    except OSError as error:
        raise InputError(f"not readable: {error.strerror}", file=str(path)) from None
    except UnicodeDecodeError:
        raise InputError("this is no CSV in UTF-8", file=str(path)) from None
    for number, row in enumerate(rows):
        if any(row[column] is None or not row[column].strip() for column in columns):
            raise InputError("a value is missing", file=str(path), line=number + 2, allowed=", ".join(columns))
    return [{name: (value or "").strip() for name, value in row.items() if name is not None} for row in rows]
