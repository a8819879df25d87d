"""One process for each run folder: a lock that dies with the process that holds it."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unitrain.spec.errors import InputError

NAME = ".lock"

# A process may lock a file that it has locked already: the system does not say no, so this does.
_held: set[Path] = set()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder; the lock ends with the block, or with the process however it ends.

    A POSIX record lock (`fcntl`): unlike `flock`, child processes do not inherit it, so none of them keeps a folder
    locked after its parent was killed.

    Raises
    ------
    InputError
        Another process, or another run of this one, holds the folder; or it cannot be written.
    """
    path = (folder / NAME).resolve()
    if path in _held:
        raise _in_use(folder, path)
    try:
        handle = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise InputError(f"the run folder cannot be written: {error.strerror}", file=str(folder)) from None
    with handle:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise _in_use(folder, path) from None
        except OSError as error:
            raise InputError(f"the run folder cannot be locked: {error.strerror}", file=str(folder)) from None
        _held.add(path)
        try:
            handle.truncate(0)
            handle.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            handle.flush()
            yield
        finally:
            _held.discard(path)


def is_locked(folder: Path) -> bool:
    """Tell whether a process trains in a folder now."""
    path = (folder / NAME).resolve()
    if path in _held:
        return True
    try:
        with path.open("r+", encoding="utf-8") as handle:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return True
    except OSError:
        return False
    return False


def _in_use(folder: Path, path: Path) -> InputError:
    try:
        holder = path.read_text(encoding="utf-8").strip() if path not in _held else "this process"
    except OSError:
        holder = ""
    return InputError(
        "the run folder is in use: another run trains in it",
        file=str(folder),
        found=holder or None,
        hint="wait for it, stop it, or name another folder",
    )
