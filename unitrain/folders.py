"""Going through folders, however deep, and never through a link.

`Path.rglob` and `shutil.rmtree` call themselves for every folder in a folder, and end at a thousand.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from unitrain.spec.errors import InputError


def walk(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Go through what lies in a folder and below: every folder before what is in it, links as links.

    Folders that may not be read are taken for empty.

    Raises
    ------
    InputError
        A folder cannot be read, as where its path is too long for the system.
    """
    waiting = [str(folder)]
    while waiting:
        place = waiting.pop()
        try:
            with os.scandir(place) as entries:
                found = list(entries)
        except PermissionError:
            continue
        except OSError as error:
            raise InputError(f"the folder cannot be read: {error.strerror}", file=place[:200]) from None
        waiting += [entry.path for entry in found if entry.is_dir(follow_symlinks=False)]
        yield from found


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder and below; links are not followed. Raises as `walk`."""
    if not path.is_dir():
        return path.lstat().st_size
    files = (entry for entry in walk(path) if entry.is_file(follow_symlinks=False))
    return sum(entry.stat(follow_symlinks=False).st_size for entry in files)


def remove_folder(folder: Path) -> None:
    """Remove a folder and all that is in it; of links, the links. Raises as `walk`, and `OSError`."""
    for entry in reversed(list(walk(folder))):
        (os.rmdir if entry.is_dir(follow_symlinks=False) else os.unlink)(entry.path)
    folder.rmdir()
