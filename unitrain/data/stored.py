"""Reading a user's file for a finished run: only what the stored preprocessing needs of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from unitrain.data.decode import Channels, decode
from unitrain.data.encoders import CategoryEncoder, PixelEncoder, TextEncoder
from unitrain.data.files import find_file, find_folder
from unitrain.data.language import windows_of
from unitrain.data.preprocess import Preprocessing
from unitrain.data.raw import Array, Origin, Raw
from unitrain.data.sources import arrays, idx, image_folder, read_source, series, table, tagged, tagged_table, text
from unitrain.data.targets import NumberTarget
from unitrain.spec.data import DataSpec
from unitrain.spec.errors import InputError, did_you_mean
from unitrain.spec.sources import Source
from unitrain.spec.sources.series import Series
from unitrain.spec.sources.table import Table
from unitrain.spec.sources.tagged import Conll, TaggedTable


def read_file(state: Preprocessing, data: str | Path | Source, folder: Path) -> tuple[Raw, list[str]]:
    """Read samples under the feature and target names of the run; targets where there are any.

    Raises
    ------
    InputError
        No such file, a suffix that is not read, a missing column or key, images where a table was learnt.
    """
    if not isinstance(data, (str, Path)):
        return _read_source(state, data, folder)
    encoders = list(state.feature_encoders().values())
    path = folder / Path(data).expanduser()
    if len(encoders) == 1 and isinstance(encoders[0], TextEncoder) and _is_text(path, encoders[0]):
        return _read_text(state, path, encoders[0]), []
    suffix = path.suffix.lower()
    if path.is_dir():
        return _read_images(state, find_folder(str(data), folder))
    path = find_file(str(data), folder)
    if suffix in table.TEXT + table.PARQUET:
        return _read_table(state, path)
    if suffix in (".npz", ".npy"):
        return _read_arrays(state, path), []
    if suffix in image_folder.SUFFIXES:
        return _read_images(state, path)
    if suffix == ".idx" or "ubyte" in path.name:
        return _renamed(state, idx.idx_raw(path, idx.sibling_labels(path))), []
    raise InputError(
        "files of this kind are not read",
        file=str(path),
        found=suffix or "no suffix",
        allowed=", ".join((*table.TEXT, *table.PARQUET, ".npz", ".npy", ".idx", *image_folder.SUFFIXES)),
    )


def _is_text(path: Path, encoder: TextEncoder) -> bool:
    """Tell a text, or a folder of them, from a table with a column of texts."""
    return path.is_dir() or encoder.unit != "text" or path.suffix.lower() in text.SUFFIXES


def _read_text(state: Preprocessing, path: Path, encoder: TextEncoder) -> Raw:
    """Read text as the run has learnt from it: one sample a file, a sentence, or a window."""
    if path.is_dir():
        raw = text.folder_raw(find_folder(str(path), Path()))
    elif encoder.unit == "words":
        raw = _read_tagged(state, find_file(str(path), Path()))
    else:
        raw = text.texts_raw({str(path): text.read_text(find_file(str(path), Path()))})
    if encoder.unit == "window":
        raw = windows_of(raw, encoder.vocabulary, encoder.length, encoder.length)
    return _renamed(state, raw)


def _read_tagged(state: Preprocessing, path: Path) -> Raw:
    """Read tagged sentences, or tokens without tags, in the columns or fields of the run."""
    if isinstance(state.tagged, TaggedTable) and path.suffix.lower() in table.TEXT + table.PARQUET:
        return tagged_table.tagged_table_raw(state.tagged, path, state.tagged.group, bare=True)
    source = state.tagged if isinstance(state.tagged, Conll) else Conll(file=str(path))
    return tagged.conll_raw(source, path, bare=True)


def _read_source(state: Preprocessing, source: Source, folder: Path) -> tuple[Raw, list[str]]:
    if isinstance(source, (Table, Series)):
        return _read_table(state, find_file(source.file, folder), source)
    parts, notes = read_source(DataSpec(source=source), folder)
    if len(parts) > 1:
        raise InputError("the source has several parts: name one file", found=", ".join(parts), field=("source",))
    return _renamed(state, parts["train"]), notes


def _read_table(state: Preprocessing, path: Path, source: Table | Series | None = None) -> tuple[Raw, list[str]]:
    separator = state.separator if source is None else source.separator
    words = state.missing_values if source is None else source.missing_values
    columns = table.read_columns(path, separator, words)
    features: dict[str, Any] = {}
    for name, encoder in state.feature_encoders().items():
        if isinstance(encoder, PixelEncoder):
            raise InputError("the run has learnt from images, and this is a table", file=str(path))
        text_or_category = "text" if isinstance(encoder, TextEncoder) else "category"
        features[name] = text_or_category if isinstance(encoder, (TextEncoder, CategoryEncoder)) else "numeric"
    targets: dict[str, Any] = {}
    for target in state.targets.values():
        for name in target.columns:
            if name in columns.values and columns.values[name].null_count < columns.count:
                numbers = isinstance(target, NumberTarget)
                targets[name] = "numeric" if numbers else table.target_kind(columns.values[name], name, str(path))
    roles = table.Roles(features, targets)
    if state.window is not None:
        return series.series_raw(columns, roles, state.time, state.series)
    return table.table_raw(columns, roles), []


def _read_arrays(state: Preprocessing, path: Path) -> Raw:
    found = {key: arrays.plain_values(values, path, key) for key, values in arrays.read_arrays(path).items()}
    features, targets = list(state.feature_encoders()), state.target_columns()
    # One nameless array can only be the one feature.
    if len(features) == 1 and features[0] not in found and len(found) == 1:
        found = {features[0]: next(iter(found.values()))}
    for name in features:
        if name not in found:
            raise InputError(
                f"no key '{name}'",
                file=str(path),
                found=", ".join(found),
                hint=did_you_mean(name, found),
            )
    used = {name: found[name] for name in (*features, *targets) if name in found}
    lengths = {name: len(values) for name, values in used.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(
            "the arrays differ in their number of samples",
            file=str(path),
            found=", ".join(f"{name} {length:,}" for name, length in lengths.items()),
        )
    return Raw(
        {name: used[name] for name in features},
        {name: _labels(used[name]) for name in targets if name in used},
        Origin(str(path)),
        np.arange(next(iter(lengths.values()))),
        white=_white(state),
    )


def _white(state: Preprocessing) -> float:
    """Return the white pixel of the training data: arrays are taken to be in the same units."""
    whites = [item.white for item in state.feature_encoders().values() if isinstance(item, PixelEncoder)]
    return whites[0] if whites else 255.0


def _labels(values: Array) -> Array:
    return values[..., 0].astype(np.int64) if values.dtype == np.uint8 and values.shape[-1] == 1 else values


def _read_images(state: Preprocessing, path: Path) -> tuple[Raw, list[str]]:
    """Read one picture or a folder of them, resized to what the run has learnt from."""
    encoders = list(state.feature_encoders().values())
    if len(encoders) != 1 or not isinstance(encoders[0], PixelEncoder):
        raise InputError(
            "the run has not learnt from images",
            file=str(path),
            allowed=f"a table with {', '.join(state.feature_encoders())}",
        )
    encoder = encoders[0]
    channels: Channels = "grayscale" if len(encoder.mean) == 1 else "rgb"
    size = (encoder.height, encoder.width)
    notes = [f"images of another size are resized to {size[0]} x {size[1]}, {channels}"]
    if path.is_dir():
        raw, skipped = image_folder.folder_raw(path, image_folder.Reading(channels, size, "auto"), "error")
        return _renamed(state, raw), notes + skipped
    pixels = decode(path, channels, size)[None]
    raw = Raw({"image": pixels}, {}, Origin(str(path), files=(str(path),)), np.arange(1))
    return _renamed(state, raw), notes


def _renamed(state: Preprocessing, raw: Raw) -> Raw:
    """Give the one feature and the one target of ``raw`` the names under which the run knows them."""

    def rename(have: Mapping[str, Array], want: list[str]) -> dict[str, Array]:
        if len(have) == 1 and len(want) == 1:
            return {want[0]: next(iter(have.values()))}
        return dict(have)

    features = rename(raw.features, list(state.feature_encoders()))
    for name in state.feature_encoders():
        if name not in features:
            raise InputError(f"no feature '{name}'", file=raw.origin.file, found=", ".join(features))
    return replace(raw, features=features, targets=rename(raw.targets, state.target_columns()))
