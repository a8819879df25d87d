"""Inputs of the model: which features each is made of, encoded and brought to its shape."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from pydantic import model_validator

from unitrain.data.encoders import Encoder, TextEncoder
from unitrain.data.lazy import Index, Lazy
from unitrain.data.raw import Array, Raw
from unitrain.spec.base import Spec
from unitrain.spec.errors import InputError


class FeatureState(Spec):
    """A feature of the source and its fitted encoder."""

    name: str
    encoder: Encoder


class InputState(Spec):
    """One model input: its features side by side, brought to ``shape`` (batch left out)."""

    shape: tuple[int, ...]
    features: tuple[FeatureState, ...]

    @model_validator(mode="after")
    def _texts_fit(self) -> InputState:
        for feature in self.features:
            if isinstance(feature.encoder, TextEncoder) and self.shape != (feature.encoder.length,):
                raise ValueError(f"texts of {feature.encoder.length} tokens for an input of shape {list(self.shape)}")
        return self

    def apply(self, raw: Raw, name: str, cut: Callable[[Array], Array] | None = None) -> Array:
        """Return float32 or int32 ``[n, *shape]``; ``cut`` makes samples of the rows of a series.

        Raises
        ------
        InputError
            The shapes do not fit.
        """
        parts = [feature.encoder.apply(raw, feature.name) for feature in self.features]
        if len(parts) > 1:
            for feature, part in zip(self.features, parts, strict=True):
                if part.ndim != 2 or isinstance(feature.encoder, TextEncoder):
                    raise InputError(
                        f"input '{name}' is made of several features, and '{feature.name}' is no column",
                        file=raw.origin.file,
                        found=f"shape {list(part.shape[1:])}",
                        hint="give it a model input of its own: features: {input: [name]}",
                    )
        values = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        if cut is not None:
            values = cut(values)
        return fit_shape(values, self.shape, name, [feature.name for feature in self.features])

    def on_demand(self, raw: Raw, name: str) -> Any:
        """Apply now; where a feature stays in its file, to rows when they are asked for (`Lazy`).

        Raises
        ------
        InputError
            As `apply`; of rows that are not read yet, when they are.
        """
        names = [feature.name for feature in self.features]
        if not any(isinstance(raw.features[feature], Lazy) for feature in names):
            return self.apply(raw, name)

        def make(rows: Index) -> Array:
            return self.apply(raw.loaded(rows, names), name)

        first = make(np.zeros(1, dtype=np.int64))
        return Lazy(make, np.arange(len(raw)), first.shape[1:], first.dtype)


def fit_shape(values: Array, shape: tuple[int, ...], name: str, features: Sequence[str]) -> Array:
    """Reshape ``[n, ...]`` to ``[n, *shape]`` where that keeps the meaning of the axes.

    Allowed: adding and removing axes of length 1, flattening, and unfolding a flat vector. Refused: anything
    that would mix axes, such as channel first to channel last.
    """
    have = values.shape[1:]
    dense_have, dense_want = ([size for size in sizes if size != 1] for sizes in (have, shape))
    flat = min(len(dense_have), len(dense_want)) <= 1 and math.prod(have) == math.prod(shape)
    if dense_have == dense_want or flat:
        return values.reshape(len(values), *shape)
    if len(have) == 1:
        what = f"{len(features)} feature columns become {have[0]} numbers" if len(features) > 1 else "the data"
        hint = f"write `shape: [{have[0]}]` for input '{name}' in the model"
    else:
        what = "the data"
        hint = f"write `shape: {list(have)}` for input '{name}' in the model (or resize the data)"
    raise InputError(
        f"{what} and input '{name}' of the model do not fit",
        found=f"data of shape {list(have)} a sample",
        allowed=f"{list(shape)}, the shape of the input",
        hint=hint,
    )
