"""Where exports go: under a temporary name first, and never over what nobody said to replace."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from unitrain.spec.errors import InputError

Target = Literal["onnx", "torch", "keras", "saved-model", "safetensors"]

SUFFIXES: dict[Target, str] = {
    "onnx": ".onnx",
    "torch": ".pt2",
    "keras": ".keras",
    "saved-model": "",
    "safetensors": ".safetensors",
}


def check_place(path: Path, target: Target, *, replace: bool) -> None:
    """See that a file can be written there. Raises `InputError`."""
    suffix = SUFFIXES[target]
    if suffix and path.suffix.lower() != suffix:
        raise InputError("another suffix is expected", file=str(path), found=path.suffix or "none", allowed=suffix)
    if not path.absolute().parent.is_dir():
        raise InputError("the folder does not exist", file=str(path.parent))
    if not path.exists() and not path.is_symlink():
        return
    if not replace:
        raise InputError("the file is there already", file=str(path), hint="--force replaces it")
    if target == "saved-model":
        if not path.is_dir() or path.is_symlink() or not (path / "saved_model.pb").is_file():
            raise InputError("this is no SavedModel, and is not replaced by one", file=str(path))
    elif path.is_dir():
        raise InputError("a folder stands in the place of the file", file=str(path))


@contextmanager
def temporary(path: Path, suffix: str) -> Iterator[Path]:
    """Give a name in a new folder beside ``path``, and remove all that is left there in the end."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=".export-", dir=path.absolute().parent))
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror or error}", file=str(path)) from None
    try:
        yield folder / f"model{suffix}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def put(place: Path, path: Path) -> None:
    """Move what has been written to its name, in one step."""
    if not place.is_dir():
        with place.open("rb") as handle:
            os.fsync(handle.fileno())
        place.replace(path)
        return
    # A folder cannot take the place of another: the old one steps aside first.
    aside = place.with_name("replaced")
    if path.exists():
        path.replace(aside)
    try:
        place.replace(path)
    except OSError:
        if aside.exists():
            aside.replace(path)
        raise
