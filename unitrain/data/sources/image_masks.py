"""Segmentation: a folder of images, and one of masks with a class for each pixel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unitrain.data.decode import Size
from unitrain.data.files import find_folder, import_library
from unitrain.data.raw import Array, Origin, Parts, Raw
from unitrain.data.sources.image_folder import Reading, list_images, read_pictures
from unitrain.spec.data import DataSpec
from unitrain.spec.errors import InputError, did_you_mean
from unitrain.spec.sources.images import ImageMasks

# The class of pixels that are left out.
IGNORED = 255
_ORIENTATION = 0x0112


def read(source: ImageMasks, folder: Path, spec: DataSpec) -> tuple[Parts, list[str]]:
    """Read the folders a recipe names: feature ``image``, target ``mask`` int32 ``[n, height, width]``.

    Raises
    ------
    InputError
        An image without a mask, sizes that differ, a picture that does not decode, a pixel that is of no class.
    """
    parts: Parts = {}
    notes: list[str] = []
    pairs = {
        "train": (source.images, source.masks),
        "validation": (source.validation_images, source.validation_masks),
        "test": (source.test_images, source.test_masks),
    }
    for part, (images, masks) in pairs.items():
        if images is None or masks is None:
            continue
        raw, said = _read_part(source, find_folder(images, folder), find_folder(masks, folder), spec)
        parts[part] = raw
        notes += said
    return parts, notes


def _read_part(source: ImageMasks, images: Path, masks: Path, spec: DataSpec) -> tuple[Raw, list[str]]:
    paths = list_images(images)
    if not paths:
        raise InputError("the folder holds no images", file=str(images))
    mask_paths, notes = _paired(paths, images, masks)
    reading = Reading(source.channels, source.size, spec.stream, spec.workers)
    pixels, kept, skipped = read_pictures(paths, reading, spec.invalid_image)
    first: Array | None = None
    for position, index in enumerate(kept):
        _check_sizes(paths[index], mask_paths[index])
        mask = read_mask(mask_paths[index], source)
        if first is None:
            first = np.empty((len(kept), *mask.shape), dtype=np.int32)
        if mask.shape != first.shape[1:]:
            raise InputError(
                "the masks differ in size",
                file=str(mask_paths[index]),
                found=f"{mask.shape[0]} x {mask.shape[1]}",
                allowed=f"{first.shape[1]} x {first.shape[2]}, as the first one has",
                hint="state `size: [height, width]`, to which images and masks are resized",
            )
        first[position] = mask
    assert first is not None  # at least one picture decodes: `read_pictures` has looked
    features: dict[str, Any] = {"image": pixels}
    origin = Origin(str(images), files=tuple(str(paths[index]) for index in kept))
    classes = {"mask": tuple(source.classes)} if source.classes else {}
    return Raw(features, {"mask": first}, origin, np.arange(len(kept)), classes=classes), [*notes, *skipped]


def _paired(paths: Sequence[Path], images: Path, masks: Path) -> tuple[list[Path], list[str]]:
    """Find the mask of each image, by its name below the folder; return a note on masks without an image."""
    found: dict[str, Path] = {}
    for path in list_images(masks):
        name = _name(path, masks)
        if name in found:
            raise InputError("two masks have one name", file=str(path), found=f"{found[name].name} and {path.name}")
        found[name] = path
    if not found:
        raise InputError("the folder holds no masks", file=str(masks))
    names = [_name(path, images) for path in paths]
    for path, name, before in zip(paths, names, [None, *names[:-1]], strict=True):
        if name == before:
            raise InputError("two images have one name, and would have one mask", file=str(path), found=name)
        if name not in found:
            raise InputError(
                "the image has no mask",
                file=str(path),
                allowed=f"{masks / name} with the suffix of a picture, best .png",
                hint=did_you_mean(name, list(found)[:1000]),
            )
    left = sorted(set(found) - set(names))
    notes = [f"{masks}: {len(left):,} masks have no image and are left out, such as '{left[0]}'"] if left else []
    return [found[name] for name in names], notes


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()


def _check_sizes(image: Path, mask: Path) -> None:
    """Compare what the two files say of their sizes, before anything is resized."""
    sizes = [_stated_size(path) for path in (image, mask)]
    if sizes[0] != sizes[1]:
        raise InputError(
            "the mask has another size than its image",
            file=str(mask),
            found=f"{sizes[1][0]} x {sizes[1][1]}",
            allowed=f"{sizes[0][0]} x {sizes[0][1]}, as {image} has",
        )


def _stated_size(path: Path) -> Size:
    image_module = import_library("PIL.Image", "pillow", "reading images")
    try:
        with image_module.open(path) as image:
            turned = image.getexif().get(_ORIENTATION, 1) >= 5
            return (image.width, image.height) if turned else (image.height, image.width)
    # Parsers raise whatever they like, and Pillow what it deems a bomb.
    except Exception as error:
        raise InputError(f"the image does not decode: {error}", file=str(path)) from None


def read_mask(path: Path, source: ImageMasks) -> Array:
    """Read one mask as class numbers, int32 ``[height, width]``.

    Raises
    ------
    InputError
        It does not decode, is in colours that have no names, or holds a pixel that is of no class.
    """
    image_module = import_library("PIL.Image", "pillow", "reading images")
    operations = import_library("PIL.ImageOps", "pillow", "reading images")
    named = list(source.classes.values()) if source.classes else []
    colours = bool(named) and not isinstance(named[0], int)
    try:
        with image_module.open(path) as opened:
            image = operations.exif_transpose(opened)
            if colours:
                image = image.convert("RGB")
            elif image.mode not in ("1", "L", "P") and not image.mode.startswith("I"):
                image = _one_channel(image, path)
            if source.size is not None and (image.height, image.width) != source.size:
                image = image.resize((source.size[1], source.size[0]), image_module.Resampling.NEAREST)
            values = np.asarray(image).astype(np.int64)
    except InputError:
        raise
    # Decoders raise whatever their format's parser raises; any failure here is a bad picture.
    except Exception as error:
        raise InputError(f"the mask does not decode: {error}", file=str(path)) from None
    if not named:
        return values.astype(np.int32)
    if colours:
        values = (values[..., 0] << 16) | (values[..., 1] << 8) | values[..., 2]
    keys = [value if isinstance(value, int) else (value[0] << 16) | (value[1] << 8) | value[2] for value in named]
    different, where = np.unique(values, return_inverse=True)
    codes = np.array([keys.index(key) if key in keys else -1 for key in different.tolist()], dtype=np.int32)
    result: Array = codes[where].reshape(values.shape)
    if source.others == "ignore":
        return np.where(result < 0, np.int32(IGNORED), result)
    if (result < 0).any():
        row, column = np.argwhere(result < 0)[0].tolist()
        key = int(values[row, column])
        raise InputError(
            "a pixel of the mask is of no class",
            file=str(path),
            found=f"{[key >> 16, key >> 8 & 255, key & 255] if colours else key} in row {row}, column {column}",
            allowed=", ".join(f"{name} {list(v) if isinstance(v, tuple) else v}" for name, v in source.classes.items())
            if source.classes
            else None,
            hint="name it in `classes`, or state `others: ignore`",
        )
    return result


def _one_channel(image: Any, path: Path) -> Any:
    """Take one of three equal channels."""
    bands = image.convert("RGB").split()
    if bands[0].tobytes() != bands[1].tobytes() or bands[0].tobytes() != bands[2].tobytes():
        raise InputError(
            "the mask is in colours, and nothing says which class a colour is",
            file=str(path),
            hint="classes: {road: [128, 64, 128], ...}",
        )
    return bands[0]
