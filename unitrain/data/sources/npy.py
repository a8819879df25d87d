"""NumPy's ``.npy`` files, one for each model input and target."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unitrain.data.files import find_file
from unitrain.data.lazy import ArrayFile
from unitrain.data.raw import Parts
from unitrain.data.sources.array_file import check_target, lazy_values, open_npy, should_stream
from unitrain.data.sources.arrays import arrays_raw, plain_values
from unitrain.spec.sources.arrays import Npy, NpyFiles


def read(source: Npy, folder: Path, stream: str) -> Parts:
    """Read or open the files a recipe names, and those of the other parts; ``stream`` as in the recipe."""
    named: dict[str, NpyFiles | None] = {"train": source, "validation": source.validation, "test": source.test}
    opened: dict[str, ArrayFile] = {}

    def found(name: str) -> ArrayFile:
        if name not in opened:
            opened[name] = open_npy(find_file(name, folder))
        return opened[name]

    given = {part: files for part, files in named.items() if files is not None}
    streams = should_stream(stream, [found(name) for files in given.values() for name in files.inputs.values()])

    def array(name: str, key: str, *, held: bool = False) -> Any:
        path, file = find_file(name, folder), found(name)
        if streams and not held:
            return lazy_values(file, path, key)
        if streams:
            check_target(file, path, key)
        return plain_values(file.read_all(), path, key)

    return {
        part: arrays_raw(
            find_file(next(iter(files.inputs.values())), folder),
            {key: array(name, key) for key, name in files.inputs.items()},
            {key: array(name, key, held=True) for key, name in files.targets.items()},
            None if files.weight is None else array(files.weight, "weight", held=True),
            None if files.group is None else array(files.group, "group", held=True),
            [key for key, name in files.targets.items() if name in files.inputs.values()],
        )
        for part, files in given.items()
    }
