"""Weights in files: safetensors, written to a temporary name, synced and renamed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unitrain.graph.graph import Graph
from unitrain.spec.errors import InputError
from unitrain.weights.initialize import check_weights


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, sync it and rename it: never half a file.

    Raises
    ------
    InputError
        The file cannot be written: no space, no permission.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        # Whatever `write` does, the file has the permissions of any other new file.
        temporary.touch()
        mode = temporary.stat().st_mode
        write(temporary)
        temporary.chmod(mode)
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror or error}", file=str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """See that a new name in a folder survives a loss of power, where folders can be opened."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of processes that were killed while they wrote."""
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.name.startswith(".") and entry.name.endswith(".tmp"):
            entry.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def save_tensors(
    path: Path, tensors: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str] | None = None
) -> None:
    """Write arrays to a safetensors file, atomically."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    def write(temporary: Path) -> None:
        try:
            # Of no tensors and empty metadata safetensors 0.8 writes a header that it cannot read.
            save_file(contiguous, temporary, metadata=dict(metadata) if metadata else None)
        except SafetensorError as error:
            raise OSError(str(error)) from None

    contiguous = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in tensors.items()}
    write_atomically(path, write)


def load_tensors(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read a safetensors file. Raises `InputError` when it is missing or not a sound one."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not path.is_file():
        raise InputError("no such file", file=str(path))
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"not a sound safetensors file: {error}", file=str(path)) from None


def load_weights(
    path: Path, graph: Graph, defaults: Mapping[str, npt.NDArray[Any]] | None = None
) -> dict[str, npt.NDArray[Any]]:
    """Read the weights of a graph; ``defaults`` are those that the file may lack.

    Raises
    ------
    InputError
        Names or shapes differ from the graph's.
    """
    weights = {**(defaults or {}), **load_tensors(path)}
    problems = check_weights(graph, weights)
    if problems:
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise InputError(f"the weights do not fit the model '{graph.name}': {shown}", file=str(path))
    return weights
