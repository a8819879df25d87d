"""The idx format of MNIST: a magic number, the sizes, the values; gzipped or not.

Format: LeCun, Cortes & Burges, The MNIST database, "File formats": two zero bytes, a byte for the type, a
byte for the number of axes, each size as a big-endian 32-bit integer, then the values, big-endian, last axis
fastest.
"""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from unitrain.data.files import check_unpacked, find_file, find_folder
from unitrain.data.raw import Array, Origin, Parts, Raw
from unitrain.spec.errors import InputError
from unitrain.spec.sources.idx import FashionMnist, Idx, Mnist

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MAXIMUM_AXES = 8
# Deflate cannot shrink by more than 1032 to 1: a header that declares more than this cannot be true.
_MAXIMUM_RATIO = 1040
FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def read_idx(path: Path) -> Array:
    """Read one idx file; ``.gz`` is recognised by its first bytes.

    Memory is taken only after the declared size has been compared with the size of the file, and never more
    is decompressed than was declared.

    Raises
    ------
    InputError
        Not an idx file, or the sizes it declares are not those of its content.
    """
    with path.open("rb") as plain:
        packed = plain.read(2) == b"\x1f\x8b"
        plain.seek(0)
        stream = cast(BinaryIO, gzip.GzipFile(fileobj=plain)) if packed else plain
        try:
            return _read(stream, path, packed)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise InputError(f"the gzip data is damaged: {error}", file=str(path)) from None


def _read(stream: BinaryIO, path: Path, packed: bool) -> Array:
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES or not 1 <= magic[3] <= _MAXIMUM_AXES:
        raise InputError(
            "not an idx file",
            file=str(path),
            found=f"first bytes {magic.hex(' ') or 'none'}",
            allowed=f"00 00, {' or '.join(f'{code:02x}' for code in _TYPES)}, 01 to {_MAXIMUM_AXES:02x}",
        )
    dtype, axes = np.dtype(_TYPES[magic[2]]), magic[3]
    sizes = stream.read(4 * axes)
    if len(sizes) < 4 * axes:
        raise InputError("the idx header is cut off", file=str(path))
    shape = tuple(int(size) for size in np.frombuffer(sizes, dtype=">u4"))
    declared = math.prod(shape) * dtype.itemsize
    on_disk = path.stat().st_size
    most = on_disk * _MAXIMUM_RATIO if packed else on_disk - 4 - 4 * axes
    if packed and declared <= most:
        check_unpacked(path, declared, on_disk)
    content = stream.read(declared + 1) if declared <= most else b""
    if len(content) != declared:
        more = "more" if len(content) > declared else f"{len(content):,}"
        raise InputError(
            "the idx header and the content do not agree",
            file=str(path),
            found=f"{more if declared <= most else f'at most {most:,}'} bytes of values",
            allowed=f"{declared:,} bytes for shape {shape} of {dtype.name}",
        )
    return np.frombuffer(content, dtype=dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def as_pixels(images: Array, path: Path) -> Array:
    """Give images a channel axis: ``[n, height, width]`` becomes ``[n, height, width, 1]``."""
    if images.ndim == 3:
        return images[..., None]
    if images.ndim == 4:
        return images
    raise InputError(
        "these are no images",
        file=str(path),
        found=f"shape {images.shape}",
        allowed="[n, height, width] or [n, height, width, channel]",
    )


def idx_raw(images_path: Path, labels_path: Path | None, classes: tuple[str, ...] = ()) -> Raw:
    """Read an images file with, where given, its labels file: feature ``image``, target ``label``."""
    images = as_pixels(read_idx(images_path), images_path)
    targets: dict[str, Array] = {}
    if labels_path is not None:
        labels = read_idx(labels_path)
        if labels.ndim != 1:
            raise InputError(
                "labels have one axis", file=str(labels_path), found=f"shape {labels.shape}", allowed="[n]"
            )
        if len(labels) != len(images):
            raise InputError(
                "images and labels differ in number",
                file=str(labels_path),
                found=f"{len(labels):,} labels",
                allowed=f"{len(images):,}, as {images_path} has images",
            )
        targets["label"] = labels.astype(np.int64)
        classes = classes or tuple(str(code) for code in np.unique(targets["label"]))
    if images.dtype != np.uint8:
        images = images.astype(np.float64)
    return Raw(
        {"image": images},
        targets,
        Origin(str(images_path)),
        np.arange(len(images)),
        classes={"label": classes} if classes else {},
    )


def sibling_labels(images_path: Path) -> Path | None:
    """Return the labels file that lies beside an images file by MNIST's naming, if it does."""
    name = images_path.name.replace("images", "labels").replace("idx3", "idx1")
    path = images_path.with_name(name)
    return path if name != images_path.name and path.is_file() else None


def read(source: Idx, folder: Path) -> Parts:
    """Read the files a recipe names."""
    parts: Parts = {"train": idx_raw(find_file(source.images, folder), find_file(source.labels, folder))}
    if source.validation_images is not None and source.validation_labels is not None:
        parts["validation"] = idx_raw(
            find_file(source.validation_images, folder), find_file(source.validation_labels, folder)
        )
    if source.test_images is not None and source.test_labels is not None:
        parts["test"] = idx_raw(find_file(source.test_images, folder), find_file(source.test_labels, folder))
    return parts


def read_mnist(source: Mnist | FashionMnist, folder: Path) -> Parts:
    """Read the four files of MNIST or Fashion-MNIST from a folder."""
    fashion = isinstance(source, FashionMnist)
    if fashion and not (folder / source.folder).is_dir():
        raise InputError(
            "Fashion-MNIST is not on this machine",
            file=str(folder / source.folder),
            hint="apt-get install dataset-fashion-mnist (or set `folder` to where its four idx files lie)",
        )
    place = find_folder(source.folder, folder)
    classes = FASHION_CLASSES if fashion else ()

    def part(prefix: str) -> Raw:
        return idx_raw(
            _mnist_file(place, f"{prefix}-images", "idx3-ubyte"),
            _mnist_file(place, f"{prefix}-labels", "idx1-ubyte"),
            classes,
        )

    parts = {"train": part("train"), "test": part("t10k")}
    if isinstance(source, FashionMnist) and source.masks:
        return {name: _masked(raw) for name, raw in parts.items()}
    return parts


def _masked(raw: Raw) -> Raw:
    """Take for target what each pixel shows: 0 where it is black, elsewhere 1 + the number of the class."""
    shows = raw.features["image"][..., 0] > 0
    masks = np.where(shows, 1 + raw.targets["label"][:, None, None], 0).astype(np.int32)
    return replace(raw, targets={"mask": masks}, classes={"mask": ("background", *FASHION_CLASSES)})


def _mnist_file(folder: Path, name: str, kind: str) -> Path:
    tried = [f"{name}{joint}{kind}{suffix}" for joint in "-." for suffix in ("", ".gz")]
    for candidate in tried:
        if (folder / candidate).is_file():
            return find_file(candidate, folder)
    raise InputError("the folder lacks a file", file=str(folder), allowed=" or ".join(tried))
