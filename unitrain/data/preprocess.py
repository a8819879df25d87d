"""From raw samples to the arrays a model takes; the whole of it is stored with a run.

`fit` looks at the training part alone. The result is plain values (`Preprocessing.to_plain`), so that another
process, years later, applies exactly the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from unitrain.data import windows
from unitrain.data.dataset import Split
from unitrain.data.encoders import CategoryEncoder, Encoder, TextEncoder
from unitrain.data.fitting import fit_encoder
from unitrain.data.inputs import FeatureState, InputState
from unitrain.data.levels import Level, apply_levels
from unitrain.data.missing import without_missing
from unitrain.data.raw import Array, Raw
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
from unitrain.spec.choice import Choice
from unitrain.spec.columns import MISSING_WORDS
from unitrain.spec.data import DataSpec, Missing, Task, Window
from unitrain.spec.errors import InputError
from unitrain.spec.sources.series import Series
from unitrain.spec.sources.table import Table
from unitrain.spec.sources.tagged import Conll, TaggedTable


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
    tagged: Annotated[Conll | TaggedTable, Choice()] | None = None

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
