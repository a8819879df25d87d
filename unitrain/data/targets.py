"""What a model is to predict: classes as codes 0, 1, ..., numbers perhaps standardised, and the way back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from unitrain.data.columns import as_word
from unitrain.data.fitting import sort_words
from unitrain.data.raw import Array, Raw, show
from unitrain.spec.base import Spec
from unitrain.spec.choice import Choice
from unitrain.spec.data import Task
from unitrain.spec.errors import InputError, did_you_mean

# A column of whole numbers with at most so many different values is taken for classes.
_MOST_INTEGER_CLASSES = 20
# The code of what has no class: `ignore_index: -1` leaves it out of losses and metrics.
IGNORED = -1


class ClassTarget(Spec):
    """Classes by name -> codes.

    Parameters
    ----------
    columns
        Where the source keeps them. Several columns, or an array with more than one axis, hold codes already
        (several labels a sample, or one for each position) and stay as they are.
    classes
        Name of each code.
    """

    type: Literal["classes"] = "classes"
    columns: tuple[str, ...]
    classes: tuple[str, ...]

    def apply(self, raw: Raw) -> Array:
        """Return int32 ``[n]`` or ``[n, ...]``. Raises `InputError` for a class that is not known."""
        values = stacked(raw, self.columns)
        if values.ndim > 1:
            return values.astype(np.int32)
        known = {name: code for code, name in enumerate(self.classes)}
        # A set that knows its classes by code and by name may be met by either.
        if not any(name.lstrip("-").isdecimal() for name in self.classes):
            known |= {str(code): code for code in range(len(self.classes))}
        words, where = _distinct_words(values)
        codes = np.array([known.get(str(word), -1) for word in words], dtype=np.int32)[where]
        wrong = np.flatnonzero(codes < 0)
        if len(wrong):
            word = str(words[where[wrong[0]]])
            raise raw.error(
                int(wrong[0]),
                f"target '{self.columns[0]}': a class that training did not have",
                found=show(word),
                allowed=", ".join(self.classes[:20]) + (", ..." if len(self.classes) > 20 else ""),
                hint=did_you_mean(word, self.classes),
            )
        return codes


class NumberTarget(Spec):
    """Numbers -> (y - shift) / scale.

    ``naive`` is for a series: what the seasonal naive forecast is wrong by in the training span, for each column.
    ``naive_of`` is the same for each of many series, in the units of the target before it is scaled here.
    """

    type: Literal["numbers"] = "numbers"
    columns: tuple[str, ...]
    shift: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)
    naive: tuple[float, ...] = ()
    naive_of: dict[str, tuple[float, ...]] = {}

    def apply(self, raw: Raw) -> Array:
        """Return float32 ``[n]`` or ``[n, ..., k]``."""
        values = stacked(raw, self.columns)
        _check_numbers(raw, self.columns, values)
        with np.errstate(over="ignore"):  # answered below
            result = (values - self._for(values, self.shift)) / self._for(values, self.scale)
            single = np.asarray(result, dtype=np.float32)
        wrong = np.flatnonzero(~np.isfinite(single).reshape(len(single), -1).all(axis=1))
        if len(wrong):
            sample = int(wrong[0])
            message = f"target '{', '.join(self.columns)}': not a finite number in float32"
            raise raw.error(sample, message, found=show(values[sample].tolist()))
        return single

    def invert(self, prediction: Array) -> Array:
        """Return predictions in the units of the data: float32, same shape."""
        scaled = prediction * self._for(prediction, self.scale) + self._for(prediction, self.shift)
        return np.asarray(scaled, dtype=np.float32)

    def units_of(self, series: str, levels: Mapping[str, tuple[float, float]]) -> Array:
        """Return the units of targets of a series, float64 ``[3, column]``: see `unitrain.data.dataset.Split`.

        ``levels`` are shift and scale by which the series was scaled before, by column.
        """
        shift, scale = (np.broadcast_to(numbers, len(self.columns)) for numbers in (self.shift, self.scale))
        before = np.array([levels.get(name, (0.0, 1.0)) for name in self.columns])
        naive = np.array(self.naive_of.get(series, (math.nan,) * len(self.columns)))
        worth = scale / np.where(naive == 0.0, math.inf, naive)
        return np.stack([shift * before[:, 1] + before[:, 0], scale * before[:, 1], worth])

    @staticmethod
    def _for(values: Array, numbers: tuple[float, ...]) -> Array:
        return np.asarray(numbers[0] if len(numbers) == 1 else numbers, dtype=np.float64)


class TagTarget(Spec):
    """A class for each token of a text -> codes, cut and filled up as the text is.

    Parameters
    ----------
    columns
        The one column of the source.
    classes
        Name of each code.
    length
        Of the texts.
    unseen
        What a tag is that training did not have: an error, or `IGNORED`.
    """

    type: Literal["tags"] = "tags"
    columns: tuple[str, ...]
    classes: tuple[str, ...]
    length: Annotated[int, Field(ge=1, lt=2**31)]
    unseen: Literal["error", "ignore"] = "error"

    def apply(self, raw: Raw) -> Array:
        """Return int32 ``[n, length]``, `IGNORED` where a text has ended. Raises `InputError` for an unknown tag."""
        known = {name: code for code, name in enumerate(self.classes)}
        values = raw.targets[self.columns[0]]
        codes = np.full((len(values), self.length), IGNORED, dtype=np.int32)
        for sample, tags in enumerate(values):
            found = [known.get(tag, IGNORED) for tag in tags[: self.length]]
            if self.unseen == "error" and IGNORED in found:
                tag = tags[found.index(IGNORED)]
                raise raw.error(
                    sample,
                    f"'{self.columns[0]}': a tag that training did not have",
                    found=show(tag),
                    allowed=", ".join(self.classes[:20]) + (", ..." if len(self.classes) > 20 else ""),
                    hint=did_you_mean(tag, self.classes) or "`unseen_category: ignore` leaves such tokens out",
                )
            codes[sample, : len(found)] = found
        return codes


TargetState = Annotated[ClassTarget | NumberTarget | TagTarget, Choice()]


def by_sample(numbers: Array, like: Array) -> Array:
    """Lay numbers ``[n, column]`` along the axes of ``[n, ...]`` or ``[n, ..., column]``."""
    columns = numbers.shape[1]
    return numbers.reshape(len(numbers), *(1,) * (like.ndim - 1 - (columns > 1)), *((columns,) if columns > 1 else ()))


def are_tags(raw: Raw, columns: Sequence[str]) -> bool:
    """Tell whether a target has a class for each token: object ``[n]`` of tuples."""
    values = raw.targets[columns[0]]
    return values.dtype == object and isinstance(values[0], tuple)


def fit_tags(raw: Raw, column: str, length: int | None, unseen: Literal["error", "ignore"]) -> TagTarget:
    """Collect the tags of the training part. Raises `InputError` when there is one only, or no text."""
    classes = sorted({tag for tags in raw.targets[column] for tag in tags})
    if len(classes) < 2:
        raise InputError(f"target '{column}' has one tag only in the training part", file=raw.origin.file)
    if length is None:
        raise InputError("tags belong to the tokens of a text, and no input is made of one", field=("features",))
    return TagTarget(columns=(column,), classes=tuple(classes), length=length, unseen=unseen)


def stacked(raw: Raw, columns: Sequence[str]) -> Array:
    """Return one target array: the column ``[n]`` itself, or several as ``[n, k]``."""
    if len(columns) == 1:
        return raw.targets[columns[0]]
    for name in columns:
        if raw.targets[name].dtype == object or raw.targets[name].ndim != 1:
            raise InputError(
                f"target '{name}': several columns for one output hold one number each",
                file=raw.origin.file,
                hint="give each column of names its own output: target: {output: column}",
            )
    return np.stack([raw.targets[name] for name in columns], axis=1)


def infer_task(raw: Raw, columns: Sequence[str]) -> tuple[Task, str | None]:
    """Infer classification from names, booleans and few whole numbers; and the note that says so."""
    values = stacked(raw, columns)
    if values.dtype == object or all(name in raw.classes for name in columns):
        return "classification", None
    if values.dtype == np.uint8:
        return "regression", f"target '{', '.join(columns)}': pictures, taken as regression"
    there = values[~np.isnan(values)] if values.dtype.kind == "f" else values
    distinct = np.unique_counts(there).values  # np.unique, asked for these alone, imports masked arrays
    if len(columns) > 1 or values.ndim > 1:
        few = bool(np.isin(distinct, (0, 1)).all())
    else:
        few = len(distinct) <= min(_MOST_INTEGER_CLASSES, len(there) // 2) and bool(
            (distinct == np.round(distinct)).all()
        )
    task: Task = "classification" if few else "regression"
    return task, f"target '{', '.join(columns)}': {len(distinct):,} different numbers, taken as {task}"


def fit_target(raw: Raw, columns: tuple[str, ...], task: Task, standardise: bool) -> TargetState:
    """Fit one output's target on the training part.

    Raises
    ------
    InputError
        One class only, class codes that are not whole or below zero, or names where numbers are due.
    """
    values = stacked(raw, columns)
    name = ", ".join(columns)
    if task == "regression":
        _check_numbers(raw, columns, values)
        if values.dtype == np.uint8 and not standardise:
            # Pictures to be predicted: in the range 0 to 1, as pictures that are inputs by default.
            return NumberTarget(columns=columns, scale=(raw.white,))
        if not standardise:
            return NumberTarget(columns=columns)
        flat = values.reshape(-1, 1 if values.ndim == 1 else values.shape[-1]).astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):  # answered below
            scale = np.where(flat.min(axis=0) == flat.max(axis=0), 1.0, flat.std(axis=0))
        if not np.isfinite(scale).all():
            raise _too_large(raw, name, flat)
        return NumberTarget(
            columns=columns,
            shift=tuple(float(number) for number in flat.mean(axis=0)),
            scale=tuple(float(number) for number in scale),
        )
    if values.ndim > 1:
        return ClassTarget(columns=columns, classes=raw.classes.get(columns[0]) or _code_names(raw, name, values))
    words, _ = _distinct_words(values)
    if len(words) < 2:
        raise InputError(
            f"target '{name}' has one class only in the training part: there is nothing to learn",
            file=raw.origin.file,
            found=str(words[0]),
        )
    return ClassTarget(columns=columns, classes=raw.classes.get(columns[0]) or sort_words(words))


def _too_large(raw: Raw, name: str, values: Array) -> InputError:
    return InputError(
        f"target '{name}' has numbers too large to scale",
        file=raw.origin.file,
        found=f"{values.min():g} to {values.max():g}",
        allowed="numbers whose squares are finite",
    )


def _code_names(raw: Raw, name: str, values: Array) -> tuple[str, ...]:
    """Name the codes of an array with more than one axis; negative codes are left to a loss to ignore."""
    wrong = np.flatnonzero((values != np.round(values)).reshape(len(values), -1).any(axis=1))
    if len(wrong):
        raise raw.error(int(wrong[0]), f"target '{name}': class codes are whole numbers")
    highest = int(values.max())
    if highest >= 1_000_000:
        raise InputError(f"target '{name}': not class codes", file=raw.origin.file, found=str(highest))
    return tuple(str(code) for code in range(max(highest, 1) + 1))


def _check_numbers(raw: Raw, columns: Sequence[str], values: Array) -> None:
    if values.dtype == object:
        words = [index for index, value in enumerate(values) if not _is_number(value)]
        sample = words[0] if words else 0
        raise raw.error(
            sample,
            f"target '{columns[0]}': regression needs numbers",
            found=show(values[sample]),
            hint="for classes, use a classification loss",
        )
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        sample = int((~np.isfinite(values)).reshape(len(values), -1).any(axis=1).argmax())
        raise raw.error(
            sample, f"target '{', '.join(columns)}': not a finite number", found=show(values[sample].tolist())
        )


def _is_number(value: object) -> bool:
    try:
        float(str(value))
    except ValueError:
        return False
    return True


def _distinct_words(values: Array) -> tuple[Array, Array]:
    """Return the words that occur, and for each value which one it is."""
    if values.dtype == object:
        values = np.array([as_word(value) for value in values.tolist()], dtype=str)
    distinct, where = np.unique(values, return_inverse=True)
    return np.array([as_word(value) for value in distinct.tolist()], dtype=str), where
