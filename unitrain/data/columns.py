"""Column types: which text is a number, and what a column is when nobody says so."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

import numpy as np

from unitrain.data.raw import Array, Origin, show
from unitrain.spec.errors import InputError, did_you_mean

ColumnKind = Literal["numeric", "category", "text"]
# From this many rows on, a text column in which no two values are equal is an identifier.
_IDENTIFIER_ROWS = 20


def column_error(
    origin: Origin, row: int, column: str, message: str, found: str, hint: str | None = None
) -> InputError:
    """Build the error about one cell."""
    file, line, prefix = origin.place(row)
    return InputError(f"{prefix}column '{column}': {message}", file=file, line=line, found=found, hint=hint)


def infer_kind(values: Any, name: str, file: str) -> ColumnKind:
    """Infer what a column of a file is: ``numeric`` when every value that is there is a number.

    Parameters
    ----------
    values
        A pyarrow array; from CSV it is all text.

    Raises
    ------
    InputError
        The column has no value at all, is of a type that has no meaning here (dates, lists), or is an
        identifier.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = values.type
    if values.null_count == len(values):
        raise InputError(f"column '{name}' has no value in any row", file=file, hint=f"columns: {{{name}: ignore}}")
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "numeric"
    if pa.types.is_dictionary(kind):
        values, kind = values.cast(kind.value_type), kind.value_type
    if pa.types.is_boolean(kind):
        return "category"
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise InputError(
            f"column '{name}' has a type that is not read",
            file=file,
            found=str(kind),
            allowed="numbers, text, booleans",
            hint=f"columns: {{{name}: ignore}}",
        )
    try:
        pc.cast(values, pa.float64())
    except pa.ArrowInvalid:
        distinct = pc.count_distinct(values).as_py()
        if len(values) >= _IDENTIFIER_ROWS and distinct == len(values) - values.null_count:
            raise InputError(
                f"no two values of column '{name}' are equal: an identifier, not a category",
                file=file,
                hint=f"columns: {{{name}: ignore}} leaves it out, {{{name}: category}} keeps it, "
                f"{{{name}: text}} makes tokens of it",
            ) from None
        return "category"
    return "numeric"


def as_numbers(values: Any, name: str, origin: Origin) -> Array:
    """Turn a pyarrow array into float64 ``[n]``, NaN where missing.

    Raises
    ------
    InputError
        A value is no number, or is infinite; names its line and value.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.int8())
    try:
        numbers = pc.cast(values, pa.float64(), safe=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        for row, value in enumerate(values.to_pylist()):
            if value is not None and not _is_number(value):
                raise column_error(
                    origin,
                    row,
                    name,
                    "not a number",
                    found=show(value),
                    hint=f"state columns: {{{name}: category}} when these are names",
                ) from None
        raise InputError(
            f"column '{name}' cannot be read as numbers", file=origin.file, found=str(values.type)
        ) from None
    result = np.array(numbers.to_numpy(zero_copy_only=False), dtype=np.float64)
    infinite = np.flatnonzero(np.isinf(result))
    if len(infinite):
        raise column_error(origin, int(infinite[0]), name, "the number is not finite", found=str(result[infinite[0]]))
    return result


def as_words(values: Any, name: str, origin: Origin) -> Array:
    """Turn a pyarrow array into object ``[n]`` of str, None where missing; whole numbers without ``.0``."""
    return np.array([None if value is None else as_word(value) for value in values.to_pylist()], dtype=object)


def as_word(value: object) -> str | None:
    """Write one value the way it stands for a category: ``1`` and ``1.0`` are ``'1'``; NaN is missing."""
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (float, np.floating)):
        number = float(value)
        if number != number:
            return None
        return str(int(number)) if number.is_integer() else repr(number)
    return str(value)


def check_roles(stated: Collection[str], header: Collection[str], file: str, field: str = "source.columns") -> None:
    """Check that columns are in the file. Raises `InputError` with the nearest spelling."""
    for name in stated:
        if name not in header:
            raise InputError(
                f"no column '{name}'",
                file=file,
                found=f"{field} names it",
                allowed=", ".join(header),
                hint=did_you_mean(name, header),
            )


def _is_number(value: object) -> bool:
    try:
        float(str(value))
    except ValueError:
        return False
    return True
