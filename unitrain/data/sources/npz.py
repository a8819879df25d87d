"""NumPy's ``.npz``: one file for all arrays of a part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unitrain.data.files import find_file
from unitrain.data.lazy import ArrayFile
from unitrain.data.raw import Parts, Raw
from unitrain.data.sources.array_file import check_target, lazy_values, open_npz, should_stream
from unitrain.data.sources.arrays import arrays_raw, plain_values, read_arrays
from unitrain.spec.errors import InputError
from unitrain.spec.sources.arrays import Npz


def read(source: Npz, folder: Path, group: str | None, stream: str) -> Parts:
    """Read or open the file a recipe names, and those of the other parts; ``stream`` as in the recipe.

    Raises
    ------
    InputError
        A file is wrong, or is to stream and is compressed.
    """
    named = {"train": source.file, "validation": source.validation_file, "test": source.test_file}
    paths = {part: find_file(name, folder) for part, name in named.items() if name is not None}
    inputs = list(dict.fromkeys(source.inputs.values()))
    opened: dict[str, dict[str, ArrayFile]] = {}
    for part, path in paths.items() if stream != "never" else ():
        found = open_npz(path, inputs)
        if found is not None:
            opened[part] = found
        elif stream == "always":
            raise InputError(
                "an array that is compressed, or not there, does not stream",
                file=str(path),
                hint="np.savez writes arrays as they are; np.savez_compressed does not",
            )
    if len(opened) < len(paths) or not should_stream(
        stream, [file for files in opened.values() for file in files.values()]
    ):
        opened = {}
    return {part: _raw(path, source, group, opened.get(part)) for part, path in paths.items()}


def _raw(path: Path, source: Npz, group: str | None, opened: dict[str, ArrayFile] | None) -> Raw:
    """Read the named keys; features and targets are called by their keys."""
    inputs, targets = list(source.inputs.values()), list(source.targets.values())
    held = [*([] if opened else inputs), *targets, *(key for key in (source.weight, group) if key)]
    arrays: dict[str, Any] = {key: plain_values(values, path, key) for key, values in read_arrays(path, held).items()}
    features = (
        {key: arrays[key] for key in inputs}
        if not opened
        else {key: lazy_values(opened[key], path, key) for key in inputs}
    )
    for key in targets if opened else ():
        check_target(arrays[key], path, key)
    return arrays_raw(
        path,
        features,
        {key: arrays[key] for key in targets},
        arrays[source.weight] if source.weight else None,
        arrays[group] if group else None,
        inputs,
    )
