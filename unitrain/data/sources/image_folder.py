"""Pictures: one file, a folder of them, or a folder for each class; read by Pillow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from unitrain.data.files import find_folder, import_library
from unitrain.data.raw import Array, Origin, Parts, Raw
from unitrain.spec.errors import InputError
from unitrain.spec.sources import ImageFolder

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
Channels = Literal["grayscale", "rgb"]


def decode(path: Path, channels: Channels, size: tuple[int, int] | None) -> Array:
    """Read one picture as uint8 ``[height, width, channel]``, turned as its EXIF says.

    Raises
    ------
    InputError
        It does not decode, or would decode to more pixels than Pillow deems safe.
    """
    image_module = import_library("PIL.Image", "pillow", "reading images")
    operations = import_library("PIL.ImageOps", "pillow", "reading images")
    try:
        with image_module.open(path) as opened:
            image = operations.exif_transpose(opened)
            if image.mode.startswith("I"):  # 16 bits, which Pillow would cut off at 255
                image = image_module.fromarray((np.asarray(image) // 257).clip(0, 255).astype(np.uint8))
            image = image.convert("L" if channels == "grayscale" else "RGB")
            if size is not None and (image.height, image.width) != size:
                image = image.resize((size[1], size[0]), image_module.Resampling.BILINEAR)
            pixels = np.asarray(image, dtype=np.uint8)
    # Decoders raise whatever their format's parser raises; any failure here is a bad picture.
    except Exception as error:
        raise InputError(f"the image does not decode: {_reason(error)}", file=str(path)) from None
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _reason(error: Exception) -> str:
    return "unknown format" if type(error).__name__ == "UnidentifiedImageError" else str(error)


def read_images(
    paths: Sequence[Path],
    channels: Channels,
    size: tuple[int, int] | None,
    invalid: Literal["error", "skip"],
) -> tuple[Array, list[int], list[str]]:
    """Read many pictures of one size.

    Returns
    -------
    pixels
        Uint8 ``[n, height, width, channel]``.
    kept
        Positions in ``paths`` of those that decoded.
    notes
        A line for each that was skipped.
    """
    pixels: Array | None = None
    kept: list[int] = []
    notes: list[str] = []
    for position, path in enumerate(paths):
        try:
            image = decode(path, channels, size)
        except InputError as error:
            if invalid == "error":
                raise
            notes.append(f"skipped: {error}")
            continue
        if pixels is None:
            pixels = np.empty((len(paths), *image.shape), dtype=np.uint8)
        if image.shape != pixels.shape[1:]:
            raise InputError(
                "the images differ in size",
                file=str(path),
                found=f"{image.shape[0]} x {image.shape[1]}",
                allowed=f"{pixels.shape[1]} x {pixels.shape[2]}, as {paths[kept[0]]} has",
                hint="state `size: [height, width]`, to which all are resized",
            )
        pixels[len(kept)] = image
        kept.append(position)
    if pixels is None:
        raise InputError("no image could be read", file=str(paths[0]) if paths else None)
    return pixels[: len(kept)], kept, notes


def list_images(folder: Path) -> list[Path]:
    """List the pictures in a folder and below, by name; hidden files left out."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith(".")
    )


def folder_raw(
    folder: Path,
    channels: Channels,
    size: tuple[int, int] | None,
    invalid: Literal["error", "skip"],
) -> tuple[Raw, list[str]]:
    """Read a folder: feature ``image``; target ``class``, the name of the sub-folder, where there are any."""
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    labelled = [(path, name) for name in classes for path in list_images(folder / name)]
    paths = [path for path, _ in labelled] if labelled else list_images(folder)
    if not paths:
        raise InputError(
            "the folder holds no images",
            file=str(folder),
            allowed=f"folder/class/image with a suffix of {', '.join(SUFFIXES)}",
        )
    pixels, kept, notes = read_images(paths, channels, size, invalid)
    names: Any = np.array([name for _, name in labelled], dtype=object)
    targets: dict[str, Array] = {"class": names[kept]} if labelled else {}
    origin = Origin(str(folder), files=tuple(str(paths[position]) for position in kept))
    return Raw({"image": pixels}, targets, origin, np.arange(len(kept))), notes


def read(source: ImageFolder, folder: Path, invalid: Literal["error", "skip"]) -> tuple[Parts, list[str]]:
    """Read the folder a recipe names and those of the other parts, with the notes on what was skipped."""
    parts: Parts = {}
    notes: list[str] = []
    for part in ("train", "validation", "test"):
        name = source.folder if part == "train" else getattr(source, f"{part}_folder")
        if name is None:
            continue
        place = find_folder(name, folder)
        raw, skipped = folder_raw(place, source.channels, source.size, invalid)
        if not raw.targets:
            raise InputError("the images lie in no class folders", file=str(place), allowed="folder/class/image")
        parts[part] = raw
        notes += skipped
    return parts, notes
