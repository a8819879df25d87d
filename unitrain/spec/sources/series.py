"""Rows that follow one another in time."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from unitrain.spec.base import Spec
from unitrain.spec.columns import MISSING_WORDS, Names


class Series(Spec):
    """A CSV, TSV or Parquet file whose rows follow one another in time, evenly spaced; `DataSpec.window` cuts it up.

    With ``series`` it holds many of them, below one another or mixed; a window lies in one.

    Parameters
    ----------
    file
        Training rows, or all rows, the earliest first.
    validation_file, test_file
        Files of the other parts, where they exist, with the same columns.
    time
        Column of times (ISO 8601) or numbers that must rise from row to row, of each series; it is no feature.
    series
        Column, or columns, that tell one series from the next, where the file holds many: each row has its series'
        name. It is no feature, unless ``columns`` states it.
    scaling
        Of many series: ``each`` is scaled by its own training rows, or all ``together`` (which any other series can be
        scaled by later).
    target
        Column, or columns, or model output name -> column(s), to be forecast. Their past is a feature too, unless
        ``features`` leaves it out.
    columns
        Column -> its role, as in a table.
    separator, missing_values
        As in a table.
    """

    type: Literal["series"] = "series"
    file: str
    validation_file: str | None = None
    test_file: str | None = None
    time: str | None = None
    series: Names | None = None
    scaling: Literal["each", "together"] = "each"
    target: Names | dict[str, Names]
    columns: dict[str, Literal["numeric", "category", "ignore"]] = {}
    separator: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    missing_values: tuple[str, ...] = MISSING_WORDS

    @model_validator(mode="after")
    def _time_is_nothing_else(self) -> Series:
        if self.time is not None and any(self.time in names for names in self.target_columns().values()):
            raise ValueError(f"column '{self.time}' is stated as time and as target")
        if self.time in self.columns:
            raise ValueError(f"column '{self.time}' is stated as time and as {self.columns[str(self.time)]}")
        for name in self.series or ():
            if name == self.time or any(name in names for names in self.target_columns().values()):
                role = "time" if name == self.time else "target"
                raise ValueError(f"column '{name}' is stated as series and as {role}")
        if len(set(self.series or ())) < len(self.series or ()):
            raise ValueError("a column of series stands twice")
        return self

    def target_columns(self) -> dict[str | None, tuple[str, ...]]:
        """Columns of each model output; the key None stands for the only output."""
        if isinstance(self.target, dict):
            return {output: tuple(names) for output, names in self.target.items()}
        return {None: tuple(self.target)}
