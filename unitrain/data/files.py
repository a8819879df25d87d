"""Finding files, and saying well that one is not there."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from types import ModuleType

from unitrain.spec.errors import InputError, did_you_mean


def find_file(name: str, folder: Path) -> Path:
    """Return the path of a file that must exist and hold something. Raises `InputError`."""
    path = folder / Path(name).expanduser()
    if not path.exists():
        raise InputError("no such file", file=str(path), hint=_hint(path))
    if not path.is_file():
        raise InputError("not a file", file=str(path))
    if not os.access(path, os.R_OK):
        raise InputError("no permission to read the file", file=str(path))
    if path.stat().st_size == 0:
        raise InputError("the file is empty", file=str(path))
    return path


def find_folder(name: str, folder: Path) -> Path:
    """Return the path of a folder that must exist. Raises `InputError`."""
    path = folder / Path(name).expanduser()
    if not path.exists():
        raise InputError("no such folder", file=str(path), hint=_hint(path))
    if not path.is_dir():
        raise InputError("not a folder", file=str(path))
    return path


def import_library(module: str, package: str, purpose: str) -> ModuleType:
    """Import a library when it is needed. Raises `InputError` with the command that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"{purpose} needs the package '{package}', which cannot be imported: {error}",
            hint=f"pip install {package}",
        ) from None


def _hint(path: Path) -> str | None:
    if not path.parent.is_dir():
        return f"the folder '{path.parent}' does not exist"
    return did_you_mean(path.name, sorted(entry.name for entry in path.parent.iterdir())[:1000])
