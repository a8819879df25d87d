"""Fitting an encoder to one feature of the training part."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from unitrain.data.encoders import (
    CategoryEncoder,
    Encoder,
    IntegerEncoder,
    NumericEncoder,
    PixelEncoder,
    TextEncoder,
    as_columns,
    fill_missing,
    list_words,
)
from unitrain.data.lazy import Lazy
from unitrain.data.moments import Moments
from unitrain.data.raw import Array, Raw, missing_mask, show
from unitrain.data.vocabulary import learn_vocabulary
from unitrain.spec.data import CategoryEncoding, DataSpec, Missing, Normalise, NumericScaling
from unitrain.spec.errors import InputError
from unitrain.spec.vocabulary import VocabularySpec


def fit_encoder(
    raw: Raw, name: str, spec: DataSpec, integer: bool, shape: Sequence[int] = ()
) -> tuple[Encoder, list[str]]:
    """Fit the encoder of one feature on the training part.

    Parameters
    ----------
    integer
        The model input is of dtype ``integer``: categories become codes, numbers stay.
    shape
        Of the model input; its length is that of texts.

    Returns
    -------
    encoder
        Fitted.
    notes
        What a user should know: filled values, a constant column.
    """
    values = raw.features[name]
    if not values.size:
        raise InputError(f"'{name}' holds no numbers", file=raw.origin.file, found=f"shape {list(values.shape)}")
    stated = spec.per_column.get(name)
    if name in raw.texts:
        if stated is not None:
            raise _method_error(raw, name, stated, "text", "no method; `vocabulary` says what its tokens are")
        if not integer or len(shape) != 1:
            raise InputError(
                f"'{name}' is text, and text becomes tokens",
                field=("features",),
                found=f"an input of shape {list(shape)}, {'integers' if integer else 'floats'}",
                allowed="an input {shape: [length], dtype: integer}",
            )
        return _fit_text(raw, name, spec, shape[0])
    if values.dtype == object:
        if stated not in (None, "one_hot", "ordinal"):
            raise _method_error(raw, name, stated, "a category", "one_hot, ordinal")
        method: CategoryEncoding = "ordinal" if integer or stated == "ordinal" else "one_hot"
        if stated is None and not integer:
            method = spec.category
        return _fit_category(raw, name, method, spec)
    if stated in ("one_hot", "ordinal"):
        raise _method_error(raw, name, stated, "numeric", "standardise, min_max, none")
    if integer:
        return IntegerEncoder(width=as_columns(values).shape[-1]), []
    if values.dtype == np.uint8 and values.ndim == 4:
        return _fit_pixels(raw, name, spec)
    scaling: NumericScaling = spec.numeric
    if stated == "standardise" or stated == "min_max" or stated == "none":
        scaling = stated
    return _fit_numeric(raw, name, scaling, spec.missing)


def _fit_numeric(raw: Raw, name: str, scaling: NumericScaling, missing: Missing) -> tuple[NumericEncoder, list[str]]:
    fill: tuple[float, ...] | None = None
    if missing.numeric not in ("error", "drop_row"):
        fill = _fill_values(raw, name, missing)
    absent, moments = 0, None
    for piece in raw.chunks(name):
        values = as_columns(piece.features[name])
        flat = values.reshape(-1, values.shape[-1]).astype(np.float64, copy=False)
        absent += int(np.isnan(flat).any(axis=1).sum())
        flat = fill_missing(piece, name, values, fill).reshape(flat.shape).astype(np.float64, copy=False)
        _check_finite(piece, name, flat)
        with np.errstate(over="ignore", invalid="ignore"):  # answered below
            found = Moments.of(flat)
            moments = found if moments is None else moments.merged(found)
    assert moments is not None  # there are numbers: `fit_encoder` has looked
    width = len(moments.mean)
    low, high = moments.low, moments.high
    shift, scale = np.zeros(width), np.ones(width)
    if scaling == "standardise":
        shift, scale = moments.mean, moments.deviation
    elif scaling == "min_max":
        with np.errstate(over="ignore"):
            shift, scale = low, high - low
    scale = np.where((low == high) | (scale == 0), 1.0, scale)
    if not (np.isfinite(shift).all() and np.isfinite(scale).all()):
        raise InputError(
            f"'{name}' has numbers too large to {'standardise' if scaling == 'standardise' else 'scale'}",
            file=raw.origin.file,
            found=f"{low.min():g} to {high.max():g}",
            allowed="numbers whose squares are finite",
        )
    notes = [f"'{name}': {absent:,} missing training values filled ({missing.numeric})"] if absent else []
    constant = np.flatnonzero(low == high)
    if len(constant) and width == 1:
        notes.append(f"column '{name}' is constant in the training part: {low[0]:g}")
    elif len(constant) and raw.features[name].ndim == 2:
        notes.append(f"'{name}' has {len(constant)} constant columns: {list_words(map(str, constant), 8)}")
    encoder = NumericEncoder(shift=_plain(shift), scale=_plain(scale), fill=fill)
    return encoder, notes


def _check_finite(raw: Raw, name: str, flat: Array) -> None:
    """See that there is no infinity, of which no mean could be taken."""
    wrong = np.flatnonzero(~np.isfinite(flat).all(axis=1))
    if len(wrong):
        sample = int(wrong[0]) * len(raw) // len(flat)
        raise raw.error(
            sample, f"'{name}': not a finite number in float32", found=show(raw.features[name][sample].tolist())
        )


def _fill_values(raw: Raw, name: str, missing: Missing) -> tuple[float, ...]:
    """Return for each column what is put in the place of missing values."""
    values = raw.features[name]
    width = values.shape[-1] if values.ndim > 1 else 1
    if missing.numeric == "constant":
        return (missing.numeric_value,) * width
    if missing.numeric != "mean" and isinstance(values, Lazy):
        raise InputError(
            f"'{missing.numeric}' needs all values of '{name}' at once, and the data streams from its file",
            field=("missing", "numeric"),
            found=missing.numeric,
            allowed="error, drop_row, mean, constant",
            hint="`stream: never` holds the data in memory",
        )
    if missing.numeric == "mean":
        return _means(raw, name)
    fill = []
    for column in as_columns(values).reshape(-1, width).T:
        there = column[~np.isnan(column)]
        if not len(there):
            raise _no_value(raw, name, missing.numeric)
        numbers, counts = np.unique(there, return_counts=True)
        fill.append(float(numbers[counts.argmax()] if missing.numeric == "most_frequent" else np.median(there)))
    return tuple(fill)


def _means(raw: Raw, name: str) -> tuple[float, ...]:
    """Return the mean of each column's values that are there."""
    found: dict[int, Moments] = {}
    width = 0
    for piece in raw.chunks(name):
        values = as_columns(piece.features[name])
        width = values.shape[-1]
        for number, column in enumerate(values.reshape(-1, width).astype(np.float64, copy=False).T):
            there = column[~np.isnan(column)]
            if len(there):
                moments = Moments.of(there[:, None])
                found[number] = found[number].merged(moments) if number in found else moments
    if len(found) < width:
        raise _no_value(raw, name, "mean")
    return tuple(float(found[number].mean[0]) for number in range(width))


def _no_value(raw: Raw, name: str, method: str) -> InputError:
    return InputError(f"column '{name}' has no value in the training part to fit '{method}' on", file=raw.origin.file)


def _fit_category(raw: Raw, name: str, method: CategoryEncoding, spec: DataSpec) -> tuple[CategoryEncoder, list[str]]:
    values = raw.features[name]
    absent = missing_mask(values)
    there, counts = np.unique(values[~absent].astype(str), return_counts=True)
    fill: str | None = None
    if spec.missing.category == "constant":
        fill = spec.missing.category_value
    elif spec.missing.category == "most_frequent" and len(there):
        fill = str(there[counts.argmax()])
    words = {str(word) for word in there} | ({fill} if fill is not None else set())
    if not words:
        raise InputError(f"column '{name}' has no value in the training part", file=raw.origin.file)
    notes = []
    if absent.any():
        notes.append(f"'{name}': {int(absent.sum()):,} missing training values filled ({spec.missing.category})")
    if len(words) == 1:
        notes.append(f"column '{name}' is constant in the training part: {next(iter(words))}")
    encoder = CategoryEncoder(method=method, categories=sort_words(words), unseen=spec.unseen_category, fill=fill)
    return encoder, notes


def _fit_text(raw: Raw, name: str, spec: DataSpec, length: int) -> tuple[TextEncoder, list[str]]:
    values, vocabulary = raw.features[name], raw.texts[name]
    fill = spec.missing.category_value if spec.missing.category == "constant" else None
    if values.dtype != object:
        assert vocabulary is not None  # windows are cut from tokens
        encoder = TextEncoder(vocabulary=vocabulary, length=length, unit="window")
        return encoder, [f"'{name}': {vocabulary.size:,} tokens (the rows of an embedding)"]
    texts = [value for value in values if value is not None]
    if vocabulary is None:
        vocabulary = learn_vocabulary(spec.vocabulary or VocabularySpec(type="words"), texts)
    notes = [f"'{name}': {vocabulary.size:,} tokens (the rows of an embedding)"]
    longer = sum(len(vocabulary.encode(text)) > length for text in texts)
    if longer:
        notes.append(
            f"'{name}': {longer:,} of {len(values):,} training texts are longer than {length} tokens and are cut"
        )
    words = any(isinstance(text, tuple) for text in texts)
    return TextEncoder(vocabulary=vocabulary, length=length, unit="words" if words else "text", fill=fill), notes


def _fit_pixels(raw: Raw, name: str, spec: DataSpec) -> tuple[PixelEncoder, list[str]]:
    white = raw.white
    height, width, channels = raw.features[name].shape[1:]
    mean, std = np.zeros(channels), np.ones(channels)
    notes = []
    if isinstance(spec.pixels, Normalise):
        if len(spec.pixels.mean) != channels:
            raise InputError(
                "the stated mean and std do not fit the images",
                field=("pixels", "mean"),
                found=f"{len(spec.pixels.mean)} values",
                allowed=f"{channels}, one for each channel",
            )
        mean, std = np.array(spec.pixels.mean), np.array(spec.pixels.std)
    elif spec.pixels == "none":
        std = np.full(channels, 1.0 / white)
    elif spec.pixels == "standardise":
        # From counts of the 256 values: exact, and no float copy of all the images.
        levels = np.arange(256) / white
        counts = np.zeros((channels, 256), dtype=np.int64)
        for piece in raw.chunks(name):
            pixels = piece.features[name].reshape(-1, channels)
            counts += np.stack([np.bincount(pixels[:, c], minlength=256) for c in range(channels)])
        share = counts / counts.sum(axis=1, keepdims=True)
        mean = share @ levels
        std = np.sqrt((share * (levels - mean[:, None]) ** 2).sum(axis=1))
        std = np.where((counts > 0).sum(axis=1) == 1, 1.0, std)
    first = raw.features[name][0].reshape(-1)[0]
    if all((piece.features[name] == first).all() for piece in raw.chunks(name)):
        notes.append(f"every pixel of every training image is {first}")
    return PixelEncoder(mean=_plain(mean), std=_plain(std), height=height, width=width, white=white), notes


def sort_words(words: Iterable[object]) -> tuple[str, ...]:
    """Sort class or category names: as numbers when all are whole numbers, else as text."""
    listed = [str(word) for word in words]
    if all(word.lstrip("-").isdecimal() for word in listed):
        return tuple(sorted(listed, key=int))
    return tuple(sorted(listed))


def _method_error(raw: Raw, name: str, found: str | None, kind: str, allowed: str) -> InputError:
    return InputError(
        f"column '{name}' is {kind}",
        field=("per_column", name),
        found=found,
        allowed=allowed,
        hint=f"columns: {{{name}: category}} makes names of numbers" if kind == "numeric" else None,
    )


def _plain(values: Array) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
