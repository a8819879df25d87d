"""What a source hands on: named arrays as they were read, and where each sample stands in its file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from unitrain.data.lazy import Lazy, take
from unitrain.data.vocabulary import Vocabulary
from unitrain.spec.errors import FieldPath, InputError

Array = npt.NDArray[Any]
Rows = npt.NDArray[np.int64]

# Numbers looked at together where a feature is gone through piece by piece.
_CHUNK = 2**21


@dataclass(frozen=True)
class Origin:
    """The file (or bundled set) that samples were read from.

    Parameters
    ----------
    file
        Its name, for messages.
    unit
        How a sample is called: ``line`` (the header is line 1), ``row`` (from 1) or ``sample`` (from 0).
    read_lines
        Finds the line on which each row starts; called only when a message needs it.
    files
        The file of each sample, where every sample has its own.
    """

    file: str
    unit: Literal["line", "row", "sample"] = "sample"
    read_lines: Callable[[], Sequence[int]] | None = None
    files: tuple[str, ...] = ()

    @cached_property
    def _lines(self) -> Sequence[int]:
        return self.read_lines() if self.read_lines is not None else ()

    def place(self, row: int) -> tuple[str, int | None, str]:
        """Return file, line and the words to put before a message (one of the two says which sample)."""
        if self.files:
            return self.files[row], None, ""
        if self.unit == "line":
            return self.file, (self._lines[row] if row < len(self._lines) else None), ""
        return self.file, None, f"{self.unit} {row + (self.unit == 'row')}: "

    def name(self, row: int) -> str:
        """Name a sample in a sentence: ``train.csv line 12``."""
        file, line, _ = self.place(row)
        if self.files:
            return file
        return f"{file} {self.unit} {line if self.unit == 'line' else row + (self.unit == 'row')}"


@dataclass(frozen=True)
class Raw:
    """Samples as read, before anything is fitted.

    Parameters
    ----------
    features
        Name -> values, or `Lazy` ones that stay in their file.
        Numbers are float64 (NaN where missing) or int64, ``[n]`` or ``[n, ...]``; categories
        are object ``[n]`` of str, None where missing; pixels are uint8 ``[n, height, width, channel]``.
    targets
        Name -> values; as the features, integers as int64.
    origin
        Where the samples come from.
    rows
        Position of each sample in its origin, int64 ``[n]``.
    weight
        Float64 ``[n]``, or None.
    group
        Object ``[n]`` of str, or None.
    classes
        Target -> names of the codes 0, 1, ..., where the source knows them.
    white
        Value of a white pixel.
    texts
        Features that are text, to become tokens, each with its vocabulary where that is learnt already: object ``[n]``
        of str or of tuples of words, or int32 ``[n, length]`` of tokens.
    series
        Which series each row is of, object ``[n]`` of str, the rows of one together and in time order; None of one.
    steps
        Position of each row in its series, int64 ``[n]``, where there are many.
    """

    features: Mapping[str, Array]
    targets: Mapping[str, Array]
    origin: Origin
    rows: Rows
    weight: Array | None = None
    group: Array | None = None
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    white: float = 255.0
    texts: Mapping[str, Vocabulary | None] = field(default_factory=dict)
    series: Array | None = None
    steps: Rows | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, index: Array) -> Raw:
        """Return the samples at ``index`` (positions, or bool ``[n]``), in that order."""
        return replace(
            self,
            features={name: take(values, index) for name, values in self.features.items()},
            targets={name: values[index] for name, values in self.targets.items()},
            rows=self.rows[index],
            weight=None if self.weight is None else self.weight[index],
            group=None if self.group is None else self.group[index],
            series=None if self.series is None else self.series[index],
            steps=None if self.steps is None else self.steps[index],
        )

    @property
    def streams(self) -> bool:
        """Whether features stay in their file until they are asked for."""
        return any(isinstance(values, Lazy) for values in self.features.values())

    def loaded(self, index: Array | slice, names: Iterable[str]) -> Raw:
        """Return some features of the samples at ``index`` in memory, without targets and weight."""
        features = {name: self.features[name][index] for name in names}
        return replace(self, features=features, targets={}, rows=self.rows[index], weight=None, group=None)

    def chunks(self, name: str) -> Iterator[Raw]:
        """Go through one feature piece by piece; the pieces are the same wherever it is kept."""
        values = self.features[name]
        length = max(1, _CHUNK * len(values) // max(1, values.size))
        for first in range(0, len(values), length):
            yield self.loaded(slice(first, first + length), [name])

    def name(self, sample: int) -> str:
        """Name the sample at a position: its file and line."""
        return self.origin.name(int(self.rows[sample]))

    def error(
        self,
        sample: int,
        message: str,
        *,
        field: FieldPath = (),
        found: str | None = None,
        allowed: str | None = None,
        hint: str | None = None,
    ) -> InputError:
        """Build the error about the sample at a position, with its file and line."""
        file, line, prefix = self.origin.place(int(self.rows[sample]))
        return InputError(prefix + message, file=file, line=line, field=field, found=found, allowed=allowed, hint=hint)


# Keyed "train", "validation", "test"; a source without parts of its own gives "train" alone.
Parts = dict[str, Raw]


def missing_mask(values: Array) -> npt.NDArray[np.bool_]:
    """Return which samples lack a value: NaN anywhere in a sample, None for categories; bool ``[n]``."""
    if values.dtype == object:
        return np.fromiter((value is None for value in values), dtype=bool, count=len(values))
    if values.dtype.kind == "f":
        flat = np.isnan(values).reshape(len(values), -1)
        return np.asarray(flat.any(axis=1))
    return np.zeros(len(values), dtype=bool)


def show(value: object) -> str:
    """Write a found value short enough for a message."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
