"""From raw samples to the arrays a model takes; the whole of it is stored with a run.

`fit` looks at the training part alone. The result is plain values (`Preprocessing.to_plain`), so that another
process, years later, applies exactly the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError, model_validator

from unitrain.data import windows
from unitrain.data.dataset import Split
from unitrain.data.encoders import CategoryEncoder, Encoder, TextEncoder
from unitrain.data.fitting import fit_encoder
from unitrain.data.lazy import Index, Lazy
from unitrain.data.levels import Level, apply_levels
from unitrain.data.raw import Array, Raw, missing_mask
from unitrain.data.targets import (
    ClassTarget,
    NumberTarget,
    TagTarget,
    TargetState,
    are_tags,
    by_sample,
    fit_tags,
    fit_target,
    stacked,
)
from unitrain.data.vocabulary import PADDING
from unitrain.spec.base import Spec
from unitrain.spec.data import DataSpec, Missing, Task, Window
from unitrain.spec.errors import InputError
from unitrain.spec.sources import MISSING_WORDS, Series, Table
from unitrain.spec.text import Conll, TaggedTable


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


class Preprocessing(Spec):
    """Everything fitted on the training part, as plain values.

    Parameters
    ----------
    inputs, targets
        By model input and output.
    missing
        The policies of the recipe; those that drop rows are applied to later files too.
    window, time
        How a series is cut into samples, and its column of times.
    series, levels
        The columns that tell many series apart, and the scaling of each where each has its own.
    separator, missing_values
        How text tables are read.
    tagged
        How files of tokens with tags are read.
    """

    inputs: dict[str, InputState]
    targets: dict[str, TargetState] = {}
    missing: Missing = Missing()
    window: Window | None = None
    time: str | None = None
    series: tuple[str, ...] = ()
    levels: dict[str, Level] = {}
    separator: str | None = None
    missing_values: tuple[str, ...] = MISSING_WORDS
    tagged: Annotated[Conll | TaggedTable, Field(discriminator="type")] | None = None

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any], file: str | None = None) -> Preprocessing:
        """Read what `to_plain` wrote (JSON's lists for tuples will do). Raises `InputError`."""
        try:
            return cls.model_validate(plain)
        except ValidationError as error:
            first = error.errors()[0]
            raise InputError(f"not a stored preprocessing: {first['msg']}", file=file, field=first["loc"]) from None

    def feature_encoders(self) -> dict[str, Encoder]:
        """Return each feature that is needed, with one of its encoders."""
        return {feature.name: feature.encoder for state in self.inputs.values() for feature in state.features}

    def text_encoder(self) -> TextEncoder | None:
        """Return the encoder of the first feature that is text: its vocabulary, and how long texts are."""
        found = (encoder for encoder in self.feature_encoders().values() if isinstance(encoder, TextEncoder))
        return next(found, None)

    def text_lengths(self, split: Split) -> npt.NDArray[np.int64]:
        """Return how many tokens each text has, those cut off left out, int64 ``[n]``."""
        for name, state in self.inputs.items():
            if isinstance(state.features[0].encoder, TextEncoder):
                lengths: npt.NDArray[np.int64] = (split.inputs[name] != PADDING).sum(axis=-1)
                return lengths
        raise InputError("no input is text")

    def target_columns(self) -> list[str]:
        """Return the source's names of all targets."""
        return list(dict.fromkeys(name for state in self.targets.values() for name in state.columns))

    def classes(self) -> dict[str, tuple[str, ...]]:
        """Return the class names of each output that has classes."""
        return {
            name: state.classes for name, state in self.targets.items() if isinstance(state, (ClassTarget, TagTarget))
        }

    def apply(self, raw: Raw, *, ahead: bool = False, part: str = "") -> Split:
        """Apply to samples from which missing rows have been dropped; targets only where ``raw`` has them.

        Parameters
        ----------
        raw
            The samples; of a series, its rows.
        ahead
            Samples of a series are cut up to its end, without what they forecast.
        part
            Named where a series is too short.

        Raises
        ------
        InputError
            A missing value, an unseen category or class, another shape: with file and line.
        """
        if self.window is not None:
            return self._apply_windows(raw, self.window, ahead, part)
        inputs = {name: state.on_demand(raw, name) for name, state in self.inputs.items()}
        targets = {
            name: state.apply(raw)
            for name, state in self.targets.items()
            if all(column in raw.targets for column in state.columns)
        }
        return Split(inputs, targets, checked_weight(raw), raw.rows)

    def _apply_windows(self, raw: Raw, window: Window, ahead: bool, part: str) -> Split:
        """Encode each row once, and cut the rows into samples."""
        raw = apply_levels(raw, self.levels)
        begin = windows.starts(raw, window, ahead=ahead, part=part)
        cut = partial(windows.seen, begin=begin, window=window)
        inputs = {name: state.apply(raw, name, cut) for name, state in self.inputs.items()}
        rows = {} if ahead else {name: state.apply(raw) for name, state in self.targets.items()}
        numbers = {name: values for name, values in rows.items() if isinstance(self.targets[name], NumberTarget)}
        return Split(
            inputs,
            {name: windows.forecast(values, begin, window) for name, values in rows.items()},
            rows=raw.rows[begin + window.length - 1],
            naive={name: windows.seasonal_naive(values, begin, window) for name, values in numbers.items()},
            series=None if raw.series is None else raw.series[begin],
            units={} if raw.series is None else self._units(raw.series[begin]),
        )

    def _units(self, series: Array) -> dict[str, Array]:
        """Return the units of the targets of samples of these series; see `Split`."""
        found = {}
        names, where = np.unique(series.astype(str), return_inverse=True)
        for output, state in self.targets.items():
            if isinstance(state, NumberTarget):
                each = [state.units_of(str(name), self.levels.get(str(name), Level()).targets) for name in names]
                found[output] = np.array(each)[where]
        return found

    def without_missing(self, raw: Raw) -> tuple[Raw, list[str]]:
        """Drop the rows that the policies drop; see the function of this name."""
        return without_missing(raw, self.feature_encoders(), self.missing)

    def invert(self, output: str, prediction: Array, units: Array | None = None) -> Array:
        """Scale predicted numbers back to the units of the data, those of each series; others pass unchanged."""
        state = self.targets.get(output)
        if units is not None:
            shift, scale = (by_sample(units[:, which], prediction) for which in (0, 1))
            return np.asarray(prediction * scale + shift, dtype=np.float32)
        return state.invert(prediction) if isinstance(state, NumberTarget) else prediction


def fit(
    raw: Raw,
    spec: DataSpec,
    inputs: Mapping[str, Any],
    features: Mapping[str, Sequence[str]],
    targets: Mapping[str, TargetState],
    levels: Mapping[str, Level] | None = None,
) -> tuple[Preprocessing, list[str]]:
    """Fit everything but the targets on the training part.

    Parameters
    ----------
    raw
        The training part, scaled by ``levels`` where each of many series has its own.
    inputs
        Model inputs with ``.shape`` and ``.dtype`` (``float`` or ``integer``).
    features
        Model input -> names of its features.
    targets
        Fitted targets by model output.

    Returns
    -------
    preprocessing
        Fitted.
    notes
        What a user should know.
    """
    notes: list[str] = []
    states: dict[str, InputState] = {}
    for name, names in features.items():
        integer = str(inputs[name].dtype) == "integer"
        fitted = []
        for feature in names:
            encoder, said = fit_encoder(raw, feature, spec, integer, inputs[name].shape)
            notes += [note for note in said if note not in notes]
            fitted.append(FeatureState(name=feature, encoder=encoder))
            if isinstance(encoder, CategoryEncoder):
                words = f"'{feature}': {len(encoder.categories)} categories"
                codes = f", {encoder.codes} codes (the rows of an embedding)"
                notes.append(words + (codes if encoder.method == "ordinal" else ""))
        states[name] = InputState(shape=tuple(inputs[name].shape), features=tuple(fitted))
    text = spec.source if isinstance(spec.source, (Table, Series)) else None
    return (
        Preprocessing(
            inputs=states,
            targets=dict(targets),
            missing=spec.missing,
            tagged=spec.source if isinstance(spec.source, (Conll, TaggedTable)) else None,
            window=spec.window,
            time=spec.source.time if isinstance(spec.source, Series) else None,
            series=(spec.source.series or ()) if isinstance(spec.source, Series) else (),
            levels=dict(levels or {}),
            separator=None if text is None else text.separator,
            missing_values=MISSING_WORDS if text is None else text.missing_values,
        ),
        notes,
    )


def fit_targets(
    raw: Raw,
    columns: Mapping[str, tuple[str, ...]],
    tasks: Mapping[str, Task],
    spec: DataSpec,
    length: int | None = None,
) -> dict[str, TargetState]:
    """Fit the targets on the training part, by model output; ``length`` is that of texts, for tags of their tokens."""
    standardise = spec.target_scaling == "standardise"
    fitted: dict[str, TargetState] = {
        name: fit_tags(raw, names[0], length, spec.unseen_category)
        if are_tags(raw, names)
        else fit_target(raw, names, tasks[name], standardise)
        for name, names in columns.items()
    }
    if spec.window is None:
        return fitted
    for name, state in fitted.items():
        if isinstance(state, NumberTarget):
            errors = windows.naive_errors(raw, stacked(raw, state.columns), spec.window)
            if not np.isfinite(errors).all():
                names = ", ".join(state.columns)
                raise InputError(f"target '{names}' has numbers too large to tell apart", file=raw.origin.file)
            update: dict[str, Any] = {"naive": errors[0]}
            if raw.series is not None:
                begins = [begin for begin, _ in windows.stretches(raw)]
                update = {"naive_of": dict(zip(map(str, raw.series[begins]), errors, strict=True))}
            fitted[name] = state.model_copy(update=update)
    return fitted


def without_missing(raw: Raw, features: Mapping[str, Any], missing: Missing) -> tuple[Raw, list[str]]:
    """Drop rows where the policy is ``drop_row``; a missing target without that policy is an error.

    Returns
    -------
    raw
        The rows that are left; never none.
    notes
        How many were dropped and why.

    Raises
    ------
    InputError
        A missing target (with its row), or no row is left.
    """
    if not len(raw):
        raise InputError("there are no samples", file=raw.origin.file)
    keep = np.ones(len(raw), dtype=bool)
    notes: list[str] = []
    for name, values in raw.targets.items():
        absent = missing_mask(values)
        if absent.any() and missing.target == "error":
            raise raw.error(
                int(absent.argmax()),
                f"target '{name}': a missing value",
                found=f"{int(absent.sum()):,} missing in all",
                hint="state `missing: {target: drop_row}` to leave such rows out",
            )
        if absent.any():
            notes.append(f"{raw.origin.file}: {int(absent.sum()):,} rows without target '{name}' dropped")
        keep &= ~absent
    for name in features:
        values = raw.features[name]
        policy = missing.category if values.dtype == object else missing.numeric
        absent = np.zeros(len(raw), dtype=bool)
        if policy == "drop_row":
            absent = np.concatenate([missing_mask(piece.features[name]) for piece in raw.chunks(name)])
        if absent.any():
            notes.append(f"{raw.origin.file}: {int(absent.sum()):,} rows without '{name}' dropped")
        keep &= ~absent
    if not keep.any():
        raise InputError("no row is left: each lacks a value", file=raw.origin.file)
    return (raw if keep.all() else raw.take(keep)), notes


def checked_weight(raw: Raw) -> Array | None:
    """Return sample weights as float32 ``[n]``. Raises `InputError` for one that is negative or missing."""
    if raw.weight is None:
        return None
    weight = raw.weight.astype(np.float64)
    wrong = np.flatnonzero(~(np.isfinite(weight) & (weight >= 0)))
    if len(wrong) or weight.ndim != 1:
        sample = int(wrong[0]) if len(wrong) else 0
        raise raw.error(sample, "a sample weight is one number, zero or more", found=str(raw.weight[sample]))
    return weight.astype(np.float32)


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
