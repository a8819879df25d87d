"""One picture, read by Pillow; and a process that reads many for another one.

``python -m unitrain.data.decode`` answers on its output what it is asked on its input. A question is a line of JSON
with paths; for each of them comes a line of JSON, and behind it the pixels if they have the shape that is expected.
Nothing is pickled.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from unitrain.data.files import import_library
from unitrain.spec.errors import InputError

Channels = Literal["grayscale", "rgb"]
Size = tuple[int, int]
Pixels = npt.NDArray[np.uint8]


def decode(path: Path, channels: Channels, size: Size | None) -> Pixels:
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


def _answer(question: dict[str, Any], path: str) -> tuple[dict[str, Any], bytes]:
    size = question["size"]
    try:
        pixels = decode(Path(path), question["channels"], None if size is None else (size[0], size[1]))
    except InputError as error:
        return {"problem": error.problems[0].message}, b""
    return {"shape": pixels.shape}, pixels.tobytes() if list(pixels.shape) == question["shape"] else b""


def serve() -> None:
    """Answer until there is nothing more to read."""
    for line in sys.stdin.buffer:
        question = json.loads(line)
        for path in question["paths"]:
            head, pixels = _answer(question, path)
            sys.stdout.buffer.write(json.dumps(head).encode() + b"\n" + pixels)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    serve()
