"""How one feature becomes numbers: fitted on the training part, stored as plain values, applied anywhere.

Every encoder maps ``[n]`` or ``[n, ..., k]`` to float32 or int32 ``[n, ..., width]``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from unitrain.data.raw import Array, Raw, missing_mask, show
from unitrain.data.vocabulary import Vocabulary, padded
from unitrain.spec.base import Spec
from unitrain.spec.choice import Choice
from unitrain.spec.data import CategoryEncoding
from unitrain.spec.errors import InputError, did_you_mean


class NumericEncoder(Spec):
    """(x - shift) / scale for each entry of the last axis, missing values filled first.

    ``fill`` None means that a missing value is an error.
    """

    type: Literal["numeric"] = "numeric"
    shift: tuple[float, ...]
    scale: tuple[float, ...]
    fill: tuple[float, ...] | None = None

    def apply(self, raw: Raw, name: str) -> Array:
        """Return float32 ``[n, ..., k]``. Raises `InputError` for a missing or too large value."""
        values = as_columns(raw.features[name])
        if values.shape[-1] != len(self.shift):
            raise InputError(
                f"feature '{name}' has another width than in training",
                file=raw.origin.file,
                found=str(values.shape[-1]),
                allowed=str(len(self.shift)),
            )
        values = fill_missing(raw, name, values, self.fill)
        with np.errstate(over="ignore"):  # answered below
            scaled = (values - np.array(self.shift)) / np.array(self.scale)
            result: Array = scaled.astype(np.float32)
        wrong = np.flatnonzero(~np.isfinite(result).reshape(len(result), -1).all(axis=1))
        if len(wrong):
            raise raw.error(
                int(wrong[0]),
                f"'{name}': not a finite number in float32",
                found=show(values[wrong[0]].tolist()),
            )
        return result


class CategoryEncoder(Spec):
    """One column for each category (``one_hot``), or its code (``ordinal``; one more for unseen)."""

    type: Literal["category"] = "category"
    method: CategoryEncoding
    categories: tuple[str, ...]
    unseen: Literal["error", "ignore"] = "error"
    fill: str | None = None

    @property
    def codes(self) -> int:
        """Number of codes that an embedding must have room for."""
        return len(self.categories) + (self.unseen == "ignore")

    def apply(self, raw: Raw, name: str) -> Array:
        """Return float32 ``[n, categories]`` or int32 ``[n, 1]``. Raises `InputError` for what is unseen."""
        known = {category: code for code, category in enumerate(self.categories)}
        values = raw.features[name]
        codes = np.empty(len(values), dtype=np.int32)
        for sample, value in enumerate(values):
            word = self.fill if value is None else str(value)
            if word is None:
                raise _missing_error(raw, sample, name)
            code = known.get(word)
            if code is None and self.unseen == "error":
                raise raw.error(
                    sample,
                    f"column '{name}': a category that training did not have",
                    found=show(word),
                    allowed=list_words(self.categories),
                    hint=did_you_mean(word, self.categories) or "state `unseen_category: ignore` to let it pass",
                )
            codes[sample] = len(self.categories) if code is None else code
        if self.method == "ordinal":
            return codes[:, None]
        return np.asarray(codes[:, None] == np.arange(len(self.categories)), dtype=np.float32)


class PixelEncoder(Spec):
    """(x / white - mean) / std for each channel, where the white pixel is that of the data at hand.

    ``white`` is that of the training data, for arrays in the same units.
    """

    type: Literal["pixels"] = "pixels"
    mean: tuple[float, ...]
    std: tuple[float, ...]
    height: int
    width: int
    white: float = 255.0

    def apply(self, raw: Raw, name: str) -> Array:
        """Return float32 ``[n, height, width, channel]``. Raises `InputError` for another shape."""
        values = raw.features[name]
        if values.ndim == 3 and len(self.mean) == 1:
            values = values[..., None]
        expected = (self.height, self.width, len(self.mean))
        if values.shape[1:] != expected:
            raise InputError(
                "the images have another shape than in training",
                file=raw.origin.file,
                found=f"{list(values.shape[1:])}",
                allowed=f"{list(expected)} (height, width, channel)",
            )
        return self.scaled(fill_missing(raw, name, values, None), raw.white)

    def scaled(self, values: Array, white: float) -> Array:
        """Scale pixels whose white is ``white``."""
        std = np.array(self.std)
        result = values / (white * std).astype(np.float32)
        if any(self.mean):
            result -= (np.array(self.mean) / std).astype(np.float32)
        return np.asarray(result, dtype=np.float32)


class IntegerEncoder(Spec):
    """Whole numbers as they are, for an input of dtype ``integer``."""

    type: Literal["integer"] = "integer"
    width: int

    def apply(self, raw: Raw, name: str) -> Array:
        """Return int32 ``[n, ..., width]``. Raises `InputError` for what is no whole number."""
        values = fill_missing(raw, name, as_columns(raw.features[name]), None)
        wrong = np.flatnonzero(
            ((values != np.round(values)) | (np.abs(values) >= 2**31)).reshape(len(values), -1).any(axis=1)
        )
        if len(wrong):
            raise raw.error(
                int(wrong[0]),
                f"'{name}': an integer input takes whole numbers below 2**31",
                found=show(raw.features[name][wrong[0]].tolist()),
            )
        return values.astype(np.int32)


class TextEncoder(Spec):
    """Tokens of a text, cut to a length or filled up with padding, number 0.

    Parameters
    ----------
    unit
        What a sample is: a ``text``, ``words`` that are cut already, or a ``window`` of running text.
    fill
        The text put in the place of a missing one; None means that it is an error.
    """

    type: Literal["text"] = "text"
    vocabulary: Vocabulary
    length: Annotated[int, Field(ge=1, lt=2**31)]
    unit: Literal["text", "words", "window"] = "text"
    fill: str | None = None

    def apply(self, raw: Raw, name: str) -> Array:
        """Return int32 ``[n, length]``. Raises `InputError` for a missing text."""
        values = raw.features[name]
        if values.dtype != object:
            return np.asarray(values, dtype=np.int32)
        tokens = np.empty((len(values), self.length), dtype=np.int32)
        for sample, value in enumerate(values):
            text = self.fill if value is None else value
            if text is None:
                raise _missing_error(raw, sample, name)
            tokens[sample] = padded(self.vocabulary.encode(text), self.length)
        return tokens


Encoder = Annotated[NumericEncoder | CategoryEncoder | PixelEncoder | IntegerEncoder | TextEncoder, Choice()]


def as_columns(values: Array) -> Array:
    """Give a plain column ``[n]`` a last axis of length 1."""
    return values[:, None] if values.ndim == 1 else values


def fill_missing(raw: Raw, name: str, values: Array, fill: tuple[float, ...] | None) -> Array:
    """Put `fill` where values are NaN; None makes them an error, which names the sample."""
    if values.dtype.kind != "f":
        return values
    absent = np.isnan(values)
    if not absent.any():
        return values
    if fill is None:
        raise _missing_error(raw, int(missing_mask(values).argmax()), name)
    return np.where(absent, np.array(fill), values)


def _missing_error(raw: Raw, sample: int, name: str) -> InputError:
    return raw.error(
        sample,
        f"column '{name}': a missing value",
        hint="state a policy, such as `missing: {numeric: median, category: most_frequent}`",
    )


def list_words(words: Iterable[str], most: int = 12) -> str:
    """Write the first of many words."""
    listed = list(words)
    return ", ".join(listed[:most]) + (f", ... ({len(listed)} in all)" if len(listed) > most else "")
