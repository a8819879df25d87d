"""Tables: a sample a row."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from unitrain.spec.base import Spec
from unitrain.spec.columns import MISSING_WORDS, ColumnRole, Names


class Table(Spec):
    """A CSV, TSV or Parquet file with a header, told apart by its suffix.

    Parameters
    ----------
    file
        Training rows, or all rows.
    validation_file, test_file
        Files of the other parts, where they exist, with the same columns.
    target
        Column, or columns, or model output name -> column(s). May be left out when ``columns`` states it.
    columns
        Column -> its role. Those not named are inferred: ``numeric`` when every value is a number, else
        ``category``. A column of ``text`` becomes tokens, for an integer input of its own.
    weight, group
        Columns of the sample weights and of the groups that a split keeps together.
    separator
        One character between fields; by default a comma, or a tab in ``.tsv``.
    missing_values
        What counts as a missing value in CSV and TSV, blanks around it cut off.
    """

    type: Literal["table"] = "table"
    file: str
    validation_file: str | None = None
    test_file: str | None = None
    target: Names | dict[str, Names] | None = None
    columns: dict[str, ColumnRole] = {}
    weight: str | None = None
    group: str | None = None
    separator: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    missing_values: tuple[str, ...] = MISSING_WORDS

    @model_validator(mode="after")
    def _one_role_each(self) -> Table:
        targets = [name for names in self.target_columns().values() for name in names]
        if not targets:
            raise ValueError("no target: state `target: COLUMN` or `columns: {COLUMN: target}`")
        stray = [name for name, role in self.columns.items() if role == "target" and name not in targets]
        if stray:
            raise ValueError(f"column '{stray[0]}' is stated as a target, and `target` does not name it")
        named = [("target", name) for name in targets]
        named += [("weight", self.weight)] if self.weight else []
        named += [("group", self.group)] if self.group else []
        for role, name in named:
            if self.columns.get(name, role) != role:
                raise ValueError(f"column '{name}' is stated as {role} and as {self.columns[name]}")
        for role in ("weight", "group"):
            if len(self.with_role(role)) > 1:
                raise ValueError(f"one column can be the {role}, not {', '.join(self.with_role(role))}")
        return self

    def target_columns(self) -> dict[str | None, tuple[str, ...]]:
        """Columns of each model output; the key None stands for the only output."""
        stated = tuple(name for name, role in self.columns.items() if role == "target")
        if isinstance(self.target, dict):
            return {output: tuple(names) for output, names in self.target.items()}
        names = tuple(dict.fromkeys((*(self.target or ()), *stated)))
        return {None: names} if names else {}

    def with_role(self, role: str) -> tuple[str, ...]:
        """Columns that are the weight or the group, by either way of saying it."""
        direct = getattr(self, role)
        stated = (name for name, found in self.columns.items() if found == role)
        return tuple(dict.fromkeys((*([direct] if direct else []), *stated)))
