"""Finding files, and saying well that one is not there."""

from __future__ import annotations

import importlib
import os
from collections.abc import Collection
from pathlib import Path
from types import ModuleType

from unitrain.folders import walk
from unitrain.machine import available_memory
from unitrain.spec.errors import InputError, did_you_mean


def find_file(name: str, folder: Path) -> Path:
    """Return the path of a file that must exist and hold something. Raises `InputError`."""
    path = _place(name, folder)
    if not path.exists():
        raise InputError("no such file", file=str(path), hint=_hint(path))
    if not path.is_file():
        raise InputError("not a file", file=str(path))
    if not os.access(path, os.R_OK):
        raise InputError("no permission to read the file", file=str(path))
    if path.stat().st_size == 0:
        raise InputError("the file is empty", file=str(path))
    return path


def _place(name: str, folder: Path) -> Path:
    """Return the path that a recipe names. Raises `InputError` for what cannot be a path."""
    try:
        path = folder / Path(name).expanduser()
        path.exists()
    except (RuntimeError, ValueError, OSError) as error:  # no such user; a zero byte; a name that is too long
        raise InputError(f"this names no file: {error}", found=name[:80]) from None
    return path


# More than this, and more than a hundred times what lies on the disk, real data do not unpack to.
_BOMB_BYTES, _BOMB_RATIO = 2**30, 100


def check_unpacked(path: Path, unpacked: int, packed: int, what: str = "the file", *, in_memory: bool = True) -> None:
    """See that what is packed in a file is no bomb and fits where it goes, before it is unpacked.

    Raises
    ------
    InputError
        It unpacks to more than half of the memory that is free, or to a gibibyte and a hundred times its size.
    """
    bomb = unpacked > max(_BOMB_BYTES, _BOMB_RATIO * packed)
    if bomb or (in_memory and unpacked > available_memory() // 2):
        raise InputError(
            f"{what} unpacks to too much" + ("" if bomb else " for memory"),
            file=str(path),
            found=f"{unpacked:,} bytes from {packed:,}",
            hint="arrays of an .npy or of a plain .npz stream from their file: data.stream",
        )


def find_folder(name: str, folder: Path) -> Path:
    """Return the path of a folder that must exist. Raises `InputError`."""
    path = _place(name, folder)
    if not path.exists():
        raise InputError("no such folder", file=str(path), hint=_hint(path))
    if not path.is_dir():
        raise InputError("not a folder", file=str(path))
    return path


def list_files(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """List the files in a folder and below that have one of these suffixes, by name; hidden ones are left out.

    Links to files are followed, links to folders are not, and neither are folders that may not be read.

    Raises
    ------
    InputError
        Folders lie so deep in folders that their path is too long for the system.
    """
    return sorted(
        Path(entry.path)
        for entry in walk(folder)
        if os.path.splitext(entry.name)[1].lower() in suffixes
        and not entry.name.startswith(".")
        and Path(entry.path).is_file()
    )


def list_classes(folder: Path, suffixes: Collection[str]) -> list[tuple[Path, str]]:
    """List the files of each folder in a folder, with its name; links to such folders are followed.

    Raises
    ------
    InputError
        A link leads to a folder that this one lies in, so that there would be no end of files.
    """
    entries = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    for entry in entries:
        if entry.is_symlink() and folder.resolve().is_relative_to(entry.resolve()):
            raise InputError("the link leads to a folder that holds it", file=str(entry), found=str(entry.resolve()))
    return [(path, entry.name) for entry in entries for path in list_files(entry, suffixes)]


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
