"""Pictures: one file, a folder of them, or a folder for each class; held in memory, or left in their files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from unitrain.data.decode import Channels, Size, decode
from unitrain.data.decoders import Decoders, Problem
from unitrain.data.files import find_folder, list_classes, list_files
from unitrain.data.lazy import Index, Lazy
from unitrain.data.raw import Array, Origin, Parts, Raw
from unitrain.data.sources.array_file import BYTES_PIXEL
from unitrain.machine import available_memory, processors
from unitrain.spec.data import DataSpec
from unitrain.spec.errors import InputError
from unitrain.spec.sources.images import ImageFolder

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
# Pictures that are decoded together while a folder is read.
_PIECE = 256
_MOST_WORKERS = 8

Shape = tuple[int, int, int]


def read_images(
    paths: Sequence[Path], decoders: Decoders, shape: Shape, invalid: Literal["error", "skip"]
) -> tuple[Array, list[int], list[str]]:
    """Read many pictures of one shape.

    Returns
    -------
    pixels
        Uint8 ``[n, height, width, channel]``.
    kept
        Positions in ``paths`` of those that decoded.
    notes
        A line for each that was skipped.
    """
    pixels = np.empty((len(paths), *shape), dtype=np.uint8)
    kept: list[int] = []
    notes: list[str] = []
    for start in range(0, len(paths), _PIECE):
        piece, problems = decoders.decode([str(path) for path in paths[start : start + _PIECE]], shape)
        notes += _looked_at(problems, paths[start:], shape, invalid)
        right = [position for position in range(len(piece)) if position not in problems]
        pixels[len(kept) : len(kept) + len(right)] = piece[right]
        kept += [start + position for position in right]
    return pixels[: len(kept)], kept, notes


def leave_images(
    paths: Sequence[Path], decoders: Decoders, shape: Shape, invalid: Literal["error", "skip"]
) -> tuple[Lazy, list[int], list[str]]:
    """As `read_images`, of pictures that are decoded when they are asked for.

    Where those that do not decode are to be skipped, all are decoded once to find them.
    """
    kept, notes = list(range(len(paths))), list[str]()
    if invalid == "skip":
        kept = []
        for start in range(0, len(paths), _PIECE):
            _, problems = decoders.decode([str(path) for path in paths[start : start + _PIECE]], shape)
            notes += _looked_at(problems, paths[start:], shape, invalid)
            count = min(_PIECE, len(paths) - start)
            kept += [start + position for position in range(count) if position not in problems]
    names = np.array([str(paths[position]) for position in kept], dtype=object)

    def make(rows: Index) -> Array:
        chosen = [Path(name) for name in names[rows]]
        pixels, problems = decoders.decode([str(path) for path in chosen], shape)
        _looked_at(problems, chosen, shape, "error")
        return pixels

    return Lazy(make, np.arange(len(kept)), shape, np.uint8), kept, notes


def _looked_at(
    problems: Mapping[int, Problem], paths: Sequence[Path], shape: Shape, invalid: Literal["error", "skip"]
) -> list[str]:
    """Raise the first error that is not to be skipped; return lines about the others."""
    notes = []
    for position, problem in sorted(problems.items()):
        if not isinstance(problem, InputError):
            raise InputError(
                "the images differ in size",
                file=str(paths[position]),
                found=f"{problem[0]} x {problem[1]}",
                allowed=f"{shape[0]} x {shape[1]}, as the first one has",
                hint="state `size: [height, width]`, to which all are resized",
            )
        if invalid == "error":
            raise problem
        notes.append(f"skipped: {problem}")
    return notes


def _first_shape(paths: Sequence[Path], reading: Reading, invalid: Literal["error", "skip"]) -> Shape:
    """Return the shape of the first picture that decodes."""
    for path in paths:
        try:
            height, width, channels = decode(path, reading.channels, reading.size).shape
        except InputError:
            if invalid == "error":
                raise
            continue
        return height, width, channels
    raise InputError("no image could be read", file=str(paths[0]) if paths else None)


@dataclass(frozen=True)
class Reading:
    """How a folder is read.

    Parameters
    ----------
    channels, size
        As for `decode`.
    stream
        As in the recipe.
    workers
        Processes that decode; None for as many as there are processors where pictures stream, and none elsewhere.
    """

    channels: Channels
    size: Size | None
    stream: Literal["auto", "always", "never"] = "never"
    workers: int | None = None

    def streams(self, pictures: int, shape: Shape) -> bool:
        """Tell whether pictures are left in their files."""
        return self.stream == "always" or (
            self.stream == "auto" and pictures * math.prod(shape) * BYTES_PIXEL > available_memory() // 2
        )


def list_images(folder: Path) -> list[Path]:
    """List the pictures in a folder and below, by name; hidden files left out."""
    return list_files(folder, SUFFIXES)


def read_pictures(
    paths: Sequence[Path], reading: Reading, invalid: Literal["error", "skip"]
) -> tuple[Array | Lazy, list[int], list[str]]:
    """Read pictures, or leave them in their files; the result is that of `read_images`."""
    shape = _first_shape(paths, reading, invalid)
    streams = reading.streams(len(paths), shape)
    default = min(processors(), _MOST_WORKERS) if streams else 0
    decoders = Decoders(default if reading.workers is None else reading.workers, reading.channels, reading.size)
    return (leave_images if streams else read_images)(paths, decoders, shape, invalid)


def folder_raw(folder: Path, reading: Reading, invalid: Literal["error", "skip"]) -> tuple[Raw, list[str]]:
    """Read a folder: feature ``image``; target ``class``, the name of the sub-folder, where there are any."""
    labelled = list_classes(folder, SUFFIXES)
    paths = [path for path, _ in labelled] if labelled else list_images(folder)
    if not paths:
        raise InputError(
            "the folder holds no images",
            file=str(folder),
            allowed=f"folder/class/image with a suffix of {', '.join(SUFFIXES)}",
        )
    pixels, kept, notes = read_pictures(paths, reading, invalid)
    names: Any = np.array([name for _, name in labelled], dtype=object)
    targets: dict[str, Array] = {"class": names[kept]} if labelled else {}
    origin = Origin(str(folder), files=tuple(str(paths[position]) for position in kept))
    features: dict[str, Any] = {"image": pixels}
    return Raw(features, targets, origin, np.arange(len(kept))), notes


def read(source: ImageFolder, folder: Path, spec: DataSpec) -> tuple[Parts, list[str]]:
    """Read the folder a recipe names and those of the other parts, with the notes on what was skipped."""
    parts: Parts = {}
    notes: list[str] = []
    reading = Reading(source.channels, source.size, spec.stream, spec.workers)
    for part in ("train", "validation", "test"):
        name = source.folder if part == "train" else getattr(source, f"{part}_folder")
        if name is None:
            continue
        place = find_folder(name, folder)
        raw, skipped = folder_raw(place, reading, spec.invalid_image)
        if not raw.targets:
            raise InputError("the images lie in no class folders", file=str(place), allowed="folder/class/image")
        parts[part] = raw
        notes += skipped
    return parts, notes
